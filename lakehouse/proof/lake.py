"""One consistent view of the lake's tables in a temporary DuckDB database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
from deltalake import DeltaTable

from lakehouse.proof.archive import ArchiveFiles, find_archive
from lakehouse.proof.database import Database
from pipelines.lake.causes.pages import page_for
from pipelines.lake.delta_log import opening
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import DamagedError, LakehouseError, UsageError
from pipelines.lake.places import place_of
from pipelines.lake.playbooks import ARCHIVE
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import as_unreadable, told_apart
from pipelines.lake.tables import (
    ADJUSTMENTS,
    ALL_TABLES,
    BRONZE,
    BRONZE_ARCHIVE,
    DLQ,
    GOLD_BY_KEY,
    GOLD_DAILY,
    GOLD_HOURLY,
    LEDGER,
    SILVER,
    TableName,
)

EVENT_FIELDS = (
    "event_id",
    "customer_id",
    "api_key_id",
    "endpoint",
    "method",
    "status_code",
    "response_time_ms",
    "request_bytes",
    "response_bytes",
    "region",
)
"""The event's fields that are compared as they are; event_timestamp is compared as `ets`, in microseconds."""

KAFKA_MS = "_kafka_timestamp_ms"
_COORDINATES = (
    "_kafka_topic AS topic, _kafka_partition AS p, _kafka_offset AS o, coalesce(_kafka_timestamp_ms, "
    "epoch_ms(_kafka_timestamp)) AS kts, epoch_us(_kafka_timestamp) AS kt, _kafka_timestamp_ms AS raw_ms"
)
"""`kts`: Kafka's number of milliseconds; `kt`: its instant (microseconds) or NULL; `raw_ms`: the number, NULL in old rows."""
_COPIES = {
    BRONZE: f"{_COORDINATES}, _raw_value IS NULL AS tombstone, md5(_raw_value) AS value_md5, md5(_kafka_key) AS key_md5",
    SILVER: f"{_COORDINATES}, epoch_us(event_timestamp) AS ets, {', '.join(EVENT_FIELDS)}, schema_version, "
    "_is_late_arriving AS late, _arrival_delay_seconds AS delay",
    DLQ: f"{_COORDINATES}, md5(_raw_value) AS value_md5, md5(_kafka_key) AS key_md5, _quality_flags AS flags, "
    "_status AS status, _attempts AS attempts",
    LEDGER: "*",
    GOLD_BY_KEY: "*",
    GOLD_HOURLY: "*",
    GOLD_DAILY: "*",
    ADJUSTMENTS: "*",
}
_EMPTY_DLQ = """SELECT NULL::VARCHAR AS topic, NULL::INTEGER AS p, NULL::BIGINT AS o, NULL::BIGINT AS kts,
    NULL::BIGINT AS kt, NULL::BIGINT AS raw_ms, NULL::VARCHAR AS value_md5, NULL::VARCHAR AS key_md5,
    NULL::VARCHAR[] AS flags, NULL::VARCHAR AS status, NULL::INTEGER AS attempts WHERE false"""
HELD = "(SELECT * FROM dlq WHERE status IS DISTINCT FROM 'replayed')"
"""Dead letters whose fate that is; a replayed one has its fate in Silver."""
_KINDS = {
    "string": "VARCHAR",
    "int": "INTEGER",
    "long": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "BIGINT",
}


@dataclass(frozen=True)
class Lake:
    """Open tables (each pinned to the version it had when opened) and a database to work in.

    After `load` the database has tables `bronze`, `silver`, `dlq`; and `batch_ledger`, `gold_by_key`, `gold_hourly`,
    `gold_daily`, `billing_adjustments` where they exist. `bronze` has the rows of the archive too; `archived` are the coordinates
    of those that Bronze itself has no more, `expired` the ranges that the archive has given up.
    """

    db: Database
    tables: dict[TableName, DeltaTable]
    scratch: Path
    archive: ArchiveFiles

    def load(self, later_fields: Mapping[str, str]) -> None:
        """Copy what the checks need (coordinates, digests, event fields) out of the tables; raw bytes are not kept.

        `later_fields`: names and types of the schema files' fields beside EVENT_FIELDS.
        """
        names = {BRONZE: "bronze", SILVER: "silver", DLQ: "dlq", LEDGER: "batch_ledger"}
        names |= {GOLD_BY_KEY: "gold_by_key", GOLD_HOURLY: "gold_hourly", GOLD_DAILY: "gold_daily"}
        names |= {ADJUSTMENTS: "billing_adjustments"}
        for table, name in names.items():
            if table in self.tables:
                more = self._later_columns(later_fields) if table == SILVER else ""
                self.copy(table, name, _COPIES[table] + more)
        if DLQ not in self.tables:
            self.db.run(f"CREATE TABLE dlq AS {_EMPTY_DLQ}")
        self._load_archive()

    def _load_archive(self) -> None:
        self.db.run("CREATE TABLE archived (topic VARCHAR, p INTEGER, o BIGINT)")
        if self.archive.names:
            with told_apart(self.archive.base):
                self._copy(self.archive.dataset(), "in_archive", _COPIES[BRONZE], ARCHIVE)
            self.db.run("INSERT INTO archived SELECT topic, p, o FROM in_archive ANTI JOIN bronze USING (topic, p, o)")
            self.db.run("INSERT INTO bronze SELECT * FROM in_archive SEMI JOIN archived USING (topic, p, o)")
            self.db.run("DROP TABLE in_archive")
        if BRONZE_ARCHIVE in self.tables:
            self.copy(BRONZE_ARCHIVE, "bronze_archive", "*")
            self.db.expire(
                "SELECT topic, partition AS p, first_offset, last_offset FROM bronze_archive WHERE expired_at IS NOT NULL"
            )

    def _later_columns(self, fields: Mapping[str, str]) -> str:
        present = {field.name for field in self.tables[SILVER].schema().fields}
        columns = []
        for name, kind in fields.items():
            value = f"""epoch_us("{name}")""" if kind == "timestamp" else f'"{name}"'
            columns.append(f', {value if name in present else f"NULL::{_KINDS[kind]}"} AS "{name}"')
        return "".join(columns)

    def copy(self, table: TableName, name: str, columns: str, *, version: int | None = None) -> None:
        """Make a DuckDB table `name` of `columns` of `table`, of the pinned version or of `version`."""
        source = self.tables[table]
        if version is not None:
            source = existing_table(place_of(source), version)
        with told_apart(place_of(source)):
            self._copy(rows_dataset(source), name, columns, str(table))

    def _copy(self, dataset: Any, name: str, columns: str, what: str) -> None:
        if columns != "*" and KAFKA_MS not in dataset.schema.names:
            # A table of an older version, or an archive of its rows.
            columns = columns.replace(KAFKA_MS, "NULL::BIGINT")
        needed = None if columns == "*" else [name for name in dataset.schema.names if re.search(rf"\b{name}\b", columns)]
        # Arrow's default reads 16 batches of 4 files ahead: gigabytes of raw values.
        scanner = dataset.scanner(columns=needed, batch_size=32_768, batch_readahead=4, fragment_readahead=2)
        try:
            self.db.copy(scanner.to_reader(), name, columns)
        except (duckdb.Error, OSError) as error:
            unseen = as_unreadable(error, what)
            if unseen is not None:
                raise unseen from None
            reason = str(error).splitlines()[0]
            msg = f"I7 violated: the data of {what} cannot be read ({reason}); see {page_for(error, what)}."
            raise LakehouseError(msg) from None


@contextmanager
def open_lake(settings: Settings) -> Iterator[Lake]:
    """Open all tables that exist, consumers before producers, so that a running stream cannot make a consumer look ahead.

    Raises UsageError where Bronze or Silver is missing, UnreadableError, UnknownFeatureError or LakehouseError for a table that
    is there and cannot be read: what was not seen proves nothing, so nothing is checked.
    """
    tables = {}
    for table in reversed((LEDGER, *(name for name in ALL_TABLES if name != LEDGER))):
        opened = open_table(table.path(settings))
        if opened is not None:
            tables[table] = opened
    for needed in (BRONZE, SILVER):
        if needed not in tables:
            at = needed.path(settings)
            msg = f"There is no Delta table {needed} at {at}; run the {needed.layer} job first, or correct `lake.root`."
            raise UsageError(msg)
    with TemporaryDirectory(prefix="lakehouse-verify-") as folder:
        db = Database(Path(folder))
        try:
            yield Lake(db, tables, Path(folder), find_archive(settings))
        finally:
            db.close()


def open_table(path: str) -> DeltaTable | None:
    """Open the Delta table at `path`, or return None where there is none.

    Raises as `opening.open_table`; a damaged log violates I7.
    """
    try:
        table = opening.open_table(path)
    except DamagedError as error:
        msg = f"I7 violated: {error}"
        raise DamagedError(msg) from None
    if table is not None:
        opening.require_plain(table)
    return table
