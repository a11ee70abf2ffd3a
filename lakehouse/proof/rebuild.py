"""I13: Silver and the dead letters, derived a second time from Bronze's bytes, in another order and by another parser."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.proof.archive import ArchiveFiles
from lakehouse.proof.events import differing
from lakehouse.proof.lake import EVENT_FIELDS, HELD, KAFKA_MS, Lake
from lakehouse.proof.records import AT
from lakehouse.proof.result import Invariant
from lakehouse.proof.strict_reader import StrictReader, field_types
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.places import place_of
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE

_ROWS = 20_000
_SMALL = 20_000
"""Below this many records one process is quicker than starting others."""

_TYPES = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.int64(),
}
_PLACE = [("topic", pa.string()), ("p", pa.int32()), ("o", pa.int64()), ("kts", pa.int64()), ("fate", pa.string())]


@dataclass(frozen=True)
class _Share:
    """What one process reads: every `step`-th file of a version of Bronze, or of its archive, from the last one back."""

    path: str
    version: int
    first: int
    step: int
    schemas: str
    columns: tuple[str, ...]
    max_bytes: int
    target: str
    archive: ArchiveFiles | None = None

    def arrow_schema(self) -> pa.Schema:
        """Columns of `target`."""
        types = field_types(Path(self.schemas))
        fields = [("ets" if name == "event_timestamp" else name, _TYPES[types[name]]) for name in self.columns]
        return pa.schema([*_PLACE, *fields])


def later_fields(settings: Settings) -> dict[str, str]:
    """Names and types of the schema files' fields beside those that every version has had."""
    known = ("event_timestamp", "schema_version", *EVENT_FIELDS)
    return {name: kind for name, kind in field_types(Path(settings.schemas_dir)).items() if name not in known}


def check_rebuild(lake: Lake, later: Iterable[str]) -> Invariant:
    """I13: what Bronze's bytes give, by Python's own JSON parser, is what Silver and the dead-letter table hold.

    Needs the view `rebuilt`, whose fields `later` are compared too. A discarded letter is a decision, not a reading: it
    stays out whatever it would be.
    """
    result = Invariant("I13", "Silver rebuilt from Bronze equals the live Silver")
    db = lake.db
    result.count(db, "records parsed", "SELECT count(*) FROM rebuilt")
    db.run(f"""CREATE OR REPLACE TABLE survivors AS SELECT * FROM rebuilt SEMI JOIN (
        SELECT s.first.topic, s.first.p, s.first.o FROM (
            SELECT min({{'kts': kts, 'p': p, 'o': o, 'topic': topic}}) AS first
            FROM rebuilt ANTI JOIN {HELD} USING ({AT}) WHERE fate = 'event' GROUP BY event_id) s
    ) USING ({AT})""")
    result.count(db, "events rebuilt", "SELECT count(*) FROM survivors")
    result.count(db, "dead letters rebuilt", "SELECT count(DISTINCT (topic, p, o)) FROM rebuilt WHERE fate = 'dead_letter'")
    result.expect_none(db, "event of Bronze missing in Silver", f"SELECT {AT} FROM survivors ANTI JOIN silver USING ({AT})")
    result.expect_none(db, "Silver row that Bronze does not give", f"SELECT {AT} FROM silver ANTI JOIN survivors USING ({AT})")
    result.expect_none(db, "fields differ from Bronze's bytes", differing("survivors", "e.ets IS DISTINCT FROM s.ets", later))
    rejected = "(SELECT * FROM rebuilt WHERE fate = 'dead_letter')"
    result.expect_none(
        db, "record should be a dead letter, but is none", f"SELECT {AT} FROM {rejected} ANTI JOIN {HELD} USING ({AT})"
    )
    result.expect_none(
        db,
        "open dead letter is a valid event by today's schema files (`lakehouse dlq replay` takes it), or a tombstone",
        f"SELECT {AT} FROM (SELECT * FROM dlq WHERE coalesce(status, 'open') = 'open') ANTI JOIN {rejected} USING ({AT})",
    )
    passing = db.number(
        f"SELECT count(*) FROM (SELECT * FROM dlq WHERE status = 'discarded') SEMI JOIN rebuilt_events USING ({AT})"
    )
    if passing:
        result.notes.append(f"{passing} discarded dead letters would be events by today's schema files")
    return result


def load_rebuilt(lake: Lake, settings: Settings) -> None:
    """Make the view `rebuilt`: fate and fields of each Bronze record, by today's schema files and settings."""
    columns = ("event_timestamp", *EVENT_FIELDS, *later_fields(settings))
    bronze = lake.tables[BRONZE]
    records = lake.db.number("SELECT count(*) FROM bronze")
    workers = 1 if records < _SMALL else min(os.cpu_count() or 1, 8)
    shares = [
        _Share(
            place_of(bronze),
            bronze.version(),
            first,
            workers,
            settings.schemas_dir,
            columns,
            settings.silver.max_event_bytes,
            str(lake.scratch / f"rebuilt-{first}.parquet"),
        )
        for first in range(workers)
    ]
    hot = [share.target for share in shares]
    if lake.archive.names:
        shares += [replace(one, target=f"{one.target}.archive", archive=lake.archive) for one in shares]
    if workers == 1:
        for share in shares:
            parse_share(share)
    else:
        # Spawned, because DuckDB's and Arrow's threads do not survive a fork.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(parse_share, shares))
    rows = f"SELECT * FROM read_parquet({hot})"
    if lake.archive.names:
        # A row that was put back stands in both.
        old = [share.target for share in shares if share.archive]
        rows += f" UNION ALL SELECT * FROM read_parquet({old}) SEMI JOIN archived USING ({AT})"
    lake.db.run(f"CREATE OR REPLACE VIEW rebuilt AS {rows}")
    lake.db.run("CREATE OR REPLACE VIEW rebuilt_events AS SELECT * FROM rebuilt WHERE fate = 'event'")


def parse_share(share: _Share) -> None:
    """Parse a share of Bronze and write its fates to `share.target`."""
    reader = StrictReader.from_files(Path(share.schemas), share.columns, share.max_bytes)
    schema = share.arrow_schema()
    table = existing_table(share.path, share.version)
    dataset = rows_dataset(table) if share.archive is None else share.archive.dataset()
    fragments = list(dataset.get_fragments())[::-1][share.first :: share.step]
    columns = ["_kafka_topic", "_kafka_partition", "_kafka_offset", "_kafka_timestamp", KAFKA_MS, "_raw_value"]
    columns = [name for name in columns if name in dataset.schema.names]
    with pq.ParquetWriter(share.target, schema, compression="zstd", compression_level=1) as writer:
        for fragment in fragments:
            for batch in fragment.to_batches(schema=dataset.schema, columns=columns, batch_size=_ROWS):
                writer.write_batch(_parse(batch, reader, schema))


def _parse(batch: pa.RecordBatch, reader: StrictReader, schema: pa.Schema) -> pa.RecordBatch:
    fates, events = [], []
    for fate, event in _fates(batch.column("_raw_value").to_pylist(), reader):
        fates.append(fate)
        events.append(event)
    fields = zip(*events, strict=True) if events else [()] * len(reader.columns)
    arrays = [
        batch.column("_kafka_topic").cast(pa.string()),
        batch.column("_kafka_partition"),
        batch.column("_kafka_offset"),
        _kafka_ms(batch),
        pa.array(fates, pa.string()),
        *(pa.array(values, field.type) for values, field in zip(fields, list(schema)[len(_PLACE) :], strict=True)),
    ]
    return pa.record_batch(arrays, schema=schema)


def _kafka_ms(batch: pa.RecordBatch) -> pa.Array:
    """Kafka's number of each record; old rows have the instant alone."""
    micros = batch.column("_kafka_timestamp").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    of_time = pc.divide(pc.subtract(micros, pc.if_else(pc.less(micros, 0), 999, 0)), 1000)
    return pc.coalesce(batch.column(KAFKA_MS), of_time) if KAFKA_MS in batch.schema.names else of_time


def _fates(values: list[bytes | None], reader: StrictReader) -> Iterator[tuple[str, tuple[Any, ...]]]:
    nothing = (None,) * len(reader.columns)
    for value in values:
        if value is None:
            yield "tombstone", nothing
        else:
            event = reader.read(value)
            yield ("dead_letter", nothing) if event is None else ("event", event)
