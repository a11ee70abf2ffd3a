"""`ops.bronze_archive`: which offsets have a verified copy in the archive, so that a row gone from Bronze is no row lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from pipelines.archive.content import COORDINATES, islands, read
from pipelines.archive.units import Archive, Unit
from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.delta_log.marks import marked
from pipelines.lake.delta_log.opening import existing_table, has_table, open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.ledger.ranges import merge_ranges, subtract
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import BRONZE_ARCHIVE, Column, TableDef

TABLE = TableDef(
    name=BRONZE_ARCHIVE,
    comment="Offsets that have a verified copy in Bronze's archive: a row for each run of offsets without a hole. They may stand "
    "in Bronze as well. Rows are only added, and marked when the archive gives the copy up.",
    columns=(
        Column("day", "date", "UTC day on which Kafka took the records: `_event_date` of Bronze.", nullable=False),
        Column(
            "run",
            "string",
            "Archive run that copied them; the manifest is `_event_date=<day>/run-<run>/manifest.json`.",
            nullable=False,
        ),
        Column("topic", "string", "Topic.", nullable=False),
        Column("partition", "int", "Partition.", nullable=False),
        Column(
            "first_offset",
            "bigint",
            "First offset of the run of offsets; each one up to the last is in the archive.",
            nullable=False,
        ),
        Column("last_offset", "bigint", "Last offset of it.", nullable=False),
        Column("archived_at", "timestamp", "When the copy had been verified."),
        Column("expired_at", "timestamp", "When the archive's own retention ended and the copy was deleted; NULL before."),
    ),
    keys=("day", "run", "topic", "partition", "first_offset"),
    writer="batch/archive_bronze.py",
)
SCHEMA = arrow_schema(TABLE)


def table_path(settings: Settings) -> str:
    """Path of the table."""
    return BRONZE_ARCHIVE.path(settings)


def ensure(settings: Settings) -> None:
    """Make the table unless it is there: the SQL checks read it, so it is there from the first day."""
    if not has_table(table_path(settings)):
        DeltaTable.create(table_path(settings), SCHEMA, mode="ignore", description=TABLE.comment)


def record(settings: Settings, archive: Archive, units: Collection[Unit]) -> None:
    """Add the offsets of `units` (all that the archive has of their days), unless they are there.

    They are the offsets that the files hold, not those of Bronze.
    """
    ensure(settings)
    known = {(row["day"], row["run"]) for row in rows(settings)}
    now = datetime.now(UTC)
    added: list[dict[str, Any]] = [
        {"day": unit.day, "run": unit.run, "topic": topic, "partition": partition, "first_offset": first, "last_offset": last}
        | {"archived_at": now}
        for unit in units
        if (unit.day, unit.run) not in known
        for topic, partition, first, last in islands(read(archive.rows(unit), columns=COORDINATES))
    ]
    if added:
        write_deltalake(table_path(settings), pa.Table.from_pylist(added, SCHEMA), mode="append")
        _forget_lost(settings, {row["day"] for row in added}, {(unit.day, unit.run) for unit in units})


def _forget_lost(settings: Settings, days: Collection[date], there: Collection[tuple[date, str]]) -> None:
    """Drop the rows of copies that were moved aside as damaged, once `there` are others that hold each of their offsets."""
    known = [row for row in rows(settings) if row["day"] in days and row["expired_at"] is None]
    held = ranges(row for row in known if (row["day"], row["run"]) in there)
    for day, run in sorted({(row["day"], row["run"]) for row in known} - set(there)):
        if not subtract(ranges(row for row in known if (row["day"], row["run"]) == (day, run)), held):
            table = existing_table(table_path(settings))
            table.delete(f"run = '{run}' AND day = DATE '{day}'", commit_properties=marked("archive"))


def rows(settings: Settings) -> list[dict[str, Any]]:
    """All rows of the table; none where it is not there."""
    path = table_path(settings)
    table = open_table(path)
    if table is None:
        return []
    with told_apart(path):
        found: list[dict[str, Any]] = rows_dataset(table).to_table().to_pylist()
    return found


def ranges(found: Iterable[Mapping[str, Any]]) -> dict[int, list[tuple[int, int]]]:
    """Merge rows of the table: for each partition the ranges [start, end) of offsets."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for row in found:
        spans.setdefault(row["partition"], []).append((row["first_offset"], row["last_offset"] + 1))
    return {partition: merge_ranges(parts) for partition, parts in spans.items()}


def mark_expired(settings: Settings, units: Iterable[Unit], now: datetime) -> None:
    """Say of the offsets of `units` that their copy was given up."""
    table = existing_table(table_path(settings))
    moment = now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    keys = ", ".join(f"'{unit.run}/{unit.day}'" for unit in units)
    table.update(
        updates={"expired_at": f"TIMESTAMP '{moment}'"},
        predicate=f"expired_at IS NULL AND concat(run, '/', cast(day AS string)) IN ({keys})",
        commit_properties=marked("archive"),
    )
