"""Finds holes in Bronze's offsets, and says which of them Kafka can still fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import duckdb
import pyarrow as pa

from pipelines.archive import records as archived
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.ledger.known_gaps import Gap, known_gaps
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import BRONZE
from pipelines.runtime.replay import Ranges


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


def _accounted(settings: Settings, topic: str) -> pa.Table:
    """Ranges (partition, first_missing, last_missing) that are known gaps, or have moved to the archive."""
    known = known_gaps(settings, topic).select(["partition", "first_missing", "last_missing"])
    moved = [
        {"partition": partition, "first_missing": first, "last_missing": end - 1}
        for partition, found in archived.ranges(archived.rows(settings)).items()
        for first, end in found
    ]
    return pa.concat_tables([known, pa.Table.from_pylist(moved, known.schema)])


def as_rows(gaps: Sequence[Gap]) -> list[dict[str, int]]:
    """The gaps as plain values."""
    return [asdict(gap) for gap in gaps]
