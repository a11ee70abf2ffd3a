"""Which fate each record of a batch has: pure functions over narrow arrays, no Spark."""

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


@dataclass(frozen=True)
class Copies:
    """Records that came after another one of their id; `conflict` flags those with another payload."""

    records: Facts
    conflict: Flags

    def count(self, among: Flags) -> tuple[int, int]:
        """How many of the flagged records there are, and how many of them are conflicts."""
        return int(np.count_nonzero(among)), int(np.count_nonzero(self.conflict & among))


@dataclass(frozen=True)
class BatchSurvivors:
    """The first copy of each id in a batch, and the copies that came after it."""

    first: Facts
    copies: Copies


@dataclass(frozen=True)
class Fates:
    """What is to be done with the first copies of a batch; `replace` take the place of the rows `replaced`, later copies."""

    insert: Facts
    replace: Facts
    replaced: Facts
    replace_conflicts: int
    copies: Copies
    already_present: int
    corrected: Facts | None = None
    """Records whose own row reads differently now; None where rows are not to be corrected."""

    @property
    def rewritten(self) -> Facts:
        """Records that take the place of a row: an earlier copy's, or their own."""
        return self.replace if self.corrected is None else self.replace.concat(self.corrected)


def split_batch(valid: Facts) -> BatchSurvivors:
    """Find the first copy of each id by (Kafka timestamp, partition, offset)."""
    order = np.lexsort((valid.offset, valid.partition, valid.kafka_ms, valid.key2, valid.key))
    ordered = valid.take(order)
    same = (ordered.key[1:] == ordered.key[:-1]) & (ordered.key2[1:] == ordered.key2[:-1])
    is_first = np.concatenate(([True], ~same)) if len(valid) else np.zeros(0, dtype=bool)
    leader = np.maximum.accumulate(np.where(is_first, np.arange(len(valid)), 0))
    conflict = ordered.payload != ordered.payload[leader]
    return BatchSurvivors(ordered.take(is_first), Copies(ordered.take(~is_first), conflict[~is_first]))


def decide(first: Facts, existing: Facts, *, corrects: bool = False) -> Fates:
    """Compare each first copy with the row that the table has for its id, if any.

    `existing`: rows of the table, at most one for an id (its verdict is not used).
    The earlier one by (Kafka timestamp, partition, offset) stays, whichever came first to the lake. With `corrects` a
    record's own row is rewritten where the record reads differently now.
    """
    if not len(existing):
        none = np.zeros(len(first), dtype=bool)
        return Fates(first, first.take(none), existing, 0, Copies(first.take(none), none[:0]), 0)
    match = _match(first, existing)
    found = match >= 0
    row = existing.take(np.where(found, match, 0))
    own = found & (row.partition == first.partition) & (row.offset == first.offset)
    replaces = found & ~own & _earlier(first, row)
    duplicate = found & ~own & ~replaces
    conflict = row.payload != first.payload
    corrected = own & (conflict | (row.event_us != first.event_us)) if corrects else np.zeros(len(first), dtype=bool)
    return Fates(
        insert=first.take(~found),
        replace=first.take(replaces),
        replaced=row.take(replaces | corrected),
        replace_conflicts=int(np.count_nonzero(conflict & replaces)),
        copies=Copies(first.take(duplicate), conflict[duplicate]),
        already_present=int(np.count_nonzero(own)),
        corrected=first.take(corrected) if corrects else None,
    )


def _match(first: Facts, existing: Facts) -> Longs:
    """Position of the row with the same 128 bits, -1 where there is none."""
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
    found: Flags = _match(records, existing) >= 0
    return found


def _earlier(left: Facts, right: Facts) -> Flags:
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
