"""Holes in Bronze's offsets: where they are, which Kafka can still fill, and the record of those that it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
from deltalake import write_deltalake

from pipelines.archive import records as archived
from pipelines.bronze.schema import GAPS_TABLE
from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.delta_log.opening import existing_table, open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.ledger.ranges import merge_ranges, subtract
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import BRONZE, KNOWN_GAPS
from pipelines.runtime.replay import Ranges

RETENTION = "retention"
NO_RECORD = "no_record"

SCHEMA = arrow_schema(GAPS_TABLE)


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


def find_gaps(settings: Settings, topic: TopicState) -> list[Gap]:
    """Holes in what Bronze holds of each partition, from the first offset that Kafka has or Bronze.

    Known ones are left out, and so is what has moved to the archive.

    Reads two narrow columns of Bronze, without Spark. What lies after Bronze's last offset is lag, no hole.
    """
    path = absolute(BRONZE.path(settings))
    bronze = rows_dataset(existing_table(path))
    with told_apart(path), duckdb.connect() as db:
        db.register("bronze", bronze)
        db.register("known", _accounted(settings, topic.topic))
        db.execute("CREATE TABLE starts (p INTEGER, o BIGINT)")
        db.executemany("INSERT INTO starts VALUES (?, ?)", [(part, first) for part, first in topic.start.items()] or [(-1, 0)])
        rows = db.execute(
            """
            WITH offsets AS (
                SELECT _kafka_partition AS p, _kafka_offset AS o FROM bronze
                -- What Kafka holds before Bronze's first record is missing as well.
                UNION SELECT p, o - 1 FROM starts
                    JOIN (SELECT _kafka_partition AS p, min(_kafka_offset) AS low FROM bronze GROUP BY ALL) USING (p)
                    WHERE o < low
                UNION SELECT partition, unnest([first_missing, last_missing]) FROM known
            ), holes AS (
                SELECT p, o + 1 AS first, lead(o) OVER (PARTITION BY p ORDER BY o) - 1 AS last FROM offsets
            )
            SELECT p, first, last FROM holes h WHERE last >= first
                AND NOT EXISTS (FROM known k WHERE k.partition = h.p AND k.first_missing <= h.first AND k.last_missing >= h.last)
            ORDER BY ALL
            """
        ).fetchall()
    return [Gap(*row) for row in rows]


def fillable(gaps: Sequence[Gap], kafka: Mapping[int, int]) -> list[Gap]:
    """The parts of the gaps that lie at or after Kafka's first offset (`kafka`, for each partition)."""
    cut = [Gap(gap.partition, max(gap.first, kafka.get(gap.partition, 0)), gap.last) for gap in gaps]
    return [gap for gap in cut if gap.first <= gap.last]


def lost(gaps: Sequence[Gap], kafka: Mapping[int, int]) -> list[Gap]:
    """The parts of the gaps that lie before Kafka's first offset: retention has deleted them."""
    cut = [Gap(gap.partition, gap.first, min(gap.last, kafka.get(gap.partition, 0) - 1)) for gap in gaps]
    return [gap for gap in cut if gap.first <= gap.last]


def passed_by_retention(settings: Settings, topic: TopicState, covered: Mapping[int, int]) -> list[Gap]:
    """Offsets between the end of what Bronze covers in each partition and Kafka's first one, without those that are known.

    A partition that Bronze knows nothing of begins at 0: it was added later. None where Bronze covers nothing at all: a new
    lake begins with what Kafka has.
    """
    if not covered:
        return []
    passed = {
        part: [(covered.get(part, 0), first)] for part, first in sorted(topic.start.items()) if first > covered.get(part, 0)
    }
    return _without(passed, _known_ranges(settings, topic.topic))


def within(gaps: Sequence[Gap], asked: Sequence[Gap]) -> list[Gap]:
    """The parts of the gaps that lie inside those of `asked`."""
    return [
        Gap(gap.partition, max(gap.first, one.first), min(gap.last, one.last))
        for gap in gaps
        for one in asked
        if one.partition == gap.partition and one.first <= gap.last and one.last >= gap.first
    ]


def batches_of(gaps: Sequence[Gap]) -> list[Ranges]:
    """Batches that read exactly the gaps: each takes the next gap of every partition."""
    by_partition: dict[int, list[tuple[int, int]]] = {}
    for gap in sorted(gaps):
        by_partition.setdefault(gap.partition, []).append((gap.first, gap.last + 1))
    rounds = max((len(found) for found in by_partition.values()), default=0)
    return [{part: found[turn] for part, found in by_partition.items() if turn < len(found)} for turn in range(rounds)]


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
    for row in _known(settings, topic).to_pylist():
        known.setdefault(row["partition"], []).append((row["first_missing"], row["last_missing"] + 1))
    return {part: merge_ranges(found) for part, found in known.items()}


def _accounted(settings: Settings, topic: str) -> pa.Table:
    """Ranges (partition, first_missing, last_missing) that are known gaps, or have moved to the archive."""
    known = _known(settings, topic).select(["partition", "first_missing", "last_missing"])
    moved = [
        {"partition": partition, "first_missing": first, "last_missing": end - 1}
        for partition, found in archived.ranges(archived.rows(settings)).items()
        for first, end in found
    ]
    return pa.concat_tables([known, pa.Table.from_pylist(moved, known.schema)])


def _known(settings: Settings, topic: str) -> pa.Table:
    path = absolute(KNOWN_GAPS.path(settings))
    found = open_table(path)
    if found is None:
        return SCHEMA.empty_table()
    with told_apart(path):
        table = rows_dataset(found).to_table()
    return table.filter(pa.compute.equal(table.column("topic"), topic))


def as_rows(gaps: Sequence[Gap]) -> list[dict[str, int]]:
    """The gaps as plain values."""
    return [asdict(gap) for gap in gaps]
