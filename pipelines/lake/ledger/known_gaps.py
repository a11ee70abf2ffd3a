"""`ops.known_gaps`: holes in Bronze's offsets that Kafka cannot fill, each with its cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
from deltalake import write_deltalake

from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.ledger.ranges import merge_ranges, subtract
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import KNOWN_GAPS, Column, TableDef

RETENTION = "retention"
NO_RECORD = "no_record"

TABLE = TableDef(
    name=KNOWN_GAPS,
    comment="Holes in Bronze's offsets that Kafka cannot fill, found by `lakehouse repair bronze`: looked at and explained.",
    columns=(
        Column("topic", "string", "Topic."),
        Column("partition", "int", "Partition."),
        Column("first_missing", "bigint", "First offset of the hole."),
        Column("last_missing", "bigint", "Last offset of the hole."),
        Column(
            "cause",
            "string",
            "retention: Kafka deleted the records before they were read, they are lost; no_record: Kafka has no record there "
            "(transaction markers, compaction), nothing is lost.",
        ),
        Column("found_at", "timestamp", "When the repair found it."),
    ),
    keys=("topic", "partition", "first_missing"),
    writer="`lakehouse repair bronze`, and the start of bronze",
)
SCHEMA = arrow_schema(TABLE)


@dataclass(frozen=True, order=True)
class Gap:
    """Offsets `first` to `last` (inclusive) of a partition that Bronze does not have."""

    partition: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"partition {self.partition}, offsets {self.first} to {self.last}"


def passed_by_retention(settings: Settings, topic: str, starts: Mapping[int, int], covered: Mapping[int, int]) -> list[Gap]:
    """Offsets between the end of what Bronze covers in each partition and Kafka's first one (`starts`), less the known ones.

    A partition that Bronze knows nothing of begins at 0: it was added later. None where Bronze covers nothing at all: a new
    lake begins with what Kafka has.
    """
    if not covered:
        return []
    passed = {part: [(covered.get(part, 0), first)] for part, first in sorted(starts.items()) if first > covered.get(part, 0)}
    return _without(passed, _known_ranges(settings, topic))


def record_gaps(settings: Settings, topic: str, gaps: Mapping[Gap, str]) -> None:
    """Write gaps, each with its cause, to `ops.known_gaps`, less what it has already: to say it twice changes nothing."""
    now = datetime.now(UTC)
    known = _known_ranges(settings, topic) if gaps else {}
    rows = [
        {"topic": topic, "partition": gap.partition, "first_missing": gap.first, "last_missing": gap.last}
        | {"cause": cause, "found_at": now}
        for whole, cause in sorted(gaps.items())
        for gap in _without({whole.partition: [(whole.first, whole.last + 1)]}, known)
    ]
    if rows:
        write_deltalake(absolute(KNOWN_GAPS.path(settings)), pa.Table.from_pylist(rows, SCHEMA), mode="append")


def _without(ranges: Mapping[int, list[tuple[int, int]]], known: Mapping[int, list[tuple[int, int]]]) -> list[Gap]:
    """What is left of `ranges` [start, end) of each partition without those that are `known`."""
    return [Gap(part, first, end - 1) for part, found in subtract(ranges, known).items() for first, end in found]


def _known_ranges(settings: Settings, topic: str) -> dict[int, list[tuple[int, int]]]:
    """For each partition the ranges [start, end) that are known gaps, merged."""
    known: dict[int, list[tuple[int, int]]] = {}
    for row in known_gaps(settings, topic).to_pylist():
        known.setdefault(row["partition"], []).append((row["first_missing"], row["last_missing"] + 1))
    return {part: merge_ranges(found) for part, found in known.items()}


def known_gaps(settings: Settings, topic: str) -> pa.Table:
    """Read the known gaps of a topic."""
    path = absolute(KNOWN_GAPS.path(settings))
    found = open_table(path)
    if found is None:
        return SCHEMA.empty_table()
    with told_apart(path):
        table = rows_dataset(found).to_table()
    return table.filter(pa.compute.equal(table.column("topic"), topic))
