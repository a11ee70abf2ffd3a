"""Hold what is known of records as narrow arrays, and compare them: no Spark, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.lake.ranges import END_INSTANT_MS, FIRST_INSTANT_MS, MISSING_BELOW_MS

Longs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

VALID, REJECTED, TOMBSTONE = 0, 1, 2
"""The `verdict` of a record, before copies are looked for."""


@dataclass(frozen=True)
class Facts:
    """What is known of n records: arrays of length n (see `build_facts`).

    `kafka_ms`: Kafka's own number of milliseconds, any of 64 bits; `event_us`: microseconds since 1970.
    """

    partition: Longs
    offset: Longs
    kafka_ms: Longs
    event_us: Longs
    verdict: Longs
    key: Longs
    key2: Longs
    payload: Longs

    @staticmethod
    def from_arrow(table: pa.Table) -> Facts:
        """Facts from the columns of the same names."""
        return Facts(**{name: _longs(table, name) for name in Facts.__dataclass_fields__})

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: Any) -> Facts:
        """The facts of some rows, by mask or by positions."""
        return Facts(**{name: getattr(self, name)[rows] for name in Facts.__dataclass_fields__})

    def concat(self, other: Facts) -> Facts:
        """These facts and then the others."""
        names = Facts.__dataclass_fields__
        return Facts(**{name: np.concatenate((getattr(self, name), getattr(other, name))) for name in names})

    def has_kafka_time(self) -> Flags:
        """Which records have a Kafka time that is an instant; of the others no delay is known."""
        result: Flags = (self.kafka_ms >= FIRST_INSTANT_MS) & (self.kafka_ms < END_INSTANT_MS)
        return result

    def delayed_more(self, than_us: int) -> Flags:
        """Which records came to Kafka more than so many microseconds after their event; none without a Kafka time."""
        has_time = self.has_kafka_time()
        result: Flags = has_time & (np.where(has_time, self.kafka_ms, 0) * 1000 - self.event_us > than_us)
        return result

    def oldest_kafka_ms(self) -> int | None:
        """The first Kafka time among them; None where none has one. A number that stands for no time is not taken for it."""
        times = self.kafka_ms[self.has_kafka_time() & (self.kafka_ms >= MISSING_BELOW_MS)]
        return int(times.min()) if len(times) else None

    def coordinates(self) -> Longs:
        """Partition and offset in one long, as `transforms.coordinate`."""
        return (self.partition << 48) | self.offset

    def offset_ranges(self) -> dict[str, list[int]]:
        """First and end (exclusive) offset of each partition."""
        ranges = {}
        for partition in np.unique(self.partition):
            offsets = self.offset[self.partition == partition]
            ranges[str(partition)] = [int(offsets.min()), int(offsets.max()) + 1]
        return ranges

    def offset_holes(self, most: int = 1000) -> dict[str, list[list[int]]]:
        """Ranges [start, end) between first and end offset of each partition that no record lies in.

        Empty where there are more than `most`: then they are the log's own (transactions, compaction).
        """
        holes: dict[str, list[list[int]]] = {}
        for partition in np.unique(self.partition):
            offsets = np.sort(self.offset[self.partition == partition])
            gaps = np.flatnonzero(np.diff(offsets) > 1)
            if len(gaps):
                holes[str(partition)] = [[int(offsets[at]) + 1, int(offsets[at + 1])] for at in gaps[: most + 1]]
        return holes if sum(len(found) for found in holes.values()) <= most else {}


def _longs(table: pa.Table, name: str) -> Longs:
    column = table.column(name).combine_chunks()
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)


def match_ids(first: Facts, existing: Facts) -> Longs:
    """For each of `first` the position of the row with the same 128 bits, -1 where there is none."""
    ids = np.empty(len(existing), dtype=[("key", np.int64), ("key2", np.int64)])
    ids["key"], ids["key2"] = existing.key, existing.key2
    order = np.argsort(ids, order=("key", "key2"))
    wanted = np.empty(len(first), dtype=ids.dtype)
    wanted["key"], wanted["key2"] = first.key, first.key2
    ordered = ids[order]
    at = np.searchsorted(ordered["key"], wanted["key"])
    result = np.full(len(first), -1, dtype=np.int64)
    candidates = np.flatnonzero(at < len(ordered))
    # Two ids that share the first 64 bits stand side by side: step on while they do.
    while len(candidates):
        here = at[candidates]
        same_key = ordered["key"][here] == wanted["key"][candidates]
        candidates, here = candidates[same_key], here[same_key]
        equal = ordered["key2"][here] == wanted["key2"][candidates]
        result[candidates[equal]] = order[here[equal]]
        candidates = candidates[~equal]
        at[candidates] += 1
        candidates = candidates[at[candidates] < len(ordered)]
    return result


def has_id(records: Facts, existing: Facts) -> Flags:
    """Which records have the id of one of the rows `existing`."""
    found: Flags = match_ids(records, existing) >= 0
    return found


def is_earlier(left: Facts, right: Facts) -> Flags:
    """Which records of `left` come before those of `right` by (Kafka timestamp, partition, offset)."""
    same_time = left.kafka_ms == right.kafka_ms
    same_partition = left.partition == right.partition
    result: Flags = (left.kafka_ms < right.kafka_ms) | (
        same_time & ((left.partition < right.partition) | (same_partition & (left.offset < right.offset)))
    )
    return result


@dataclass(frozen=True)
class Coverage:
    """Ranges of offsets, for each partition, whose records had their fate in an earlier run."""

    ranges: Mapping[int, Sequence[tuple[int, int]]]

    def has(self, records: Facts) -> Flags:
        """Which records lie in a range [start, end)."""
        result = np.zeros(len(records), dtype=bool)
        for partition, ranges in self.ranges.items():
            for start, end in ranges:
                result |= (records.partition == partition) & (records.offset >= start) & (records.offset < end)
        return result
