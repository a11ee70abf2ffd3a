"""Which fate each record of a batch has: pure functions over narrow arrays, no Spark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.silver.transforms import REJECTED, TOMBSTONE, VALID

Longs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Facts:
    """What is known of n records: arrays of length n (see `build_facts`); times in microseconds."""

    partition: Longs
    offset: Longs
    kafka_us: Longs
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


def _longs(table: pa.Table, name: str) -> Longs:
    column = table.column(name).combine_chunks()
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)


@dataclass(frozen=True)
class BatchSurvivors:
    """The first copy of each id in a batch, and the copies that came after it."""

    first: Facts
    duplicates: Facts
    conflicts: int


@dataclass(frozen=True)
class Fates:
    """What is to be done with the first copies of a batch."""

    insert: Facts
    replace: Facts
    duplicates: int
    conflicts: int
    already_present: int


def split_batch(valid: Facts) -> BatchSurvivors:
    """Find the first copy of each id by (Kafka timestamp, partition, offset)."""
    order = np.lexsort((valid.offset, valid.partition, valid.kafka_us, valid.key2, valid.key))
    ordered = valid.take(order)
    same = (ordered.key[1:] == ordered.key[:-1]) & (ordered.key2[1:] == ordered.key2[:-1])
    is_first = np.concatenate(([True], ~same)) if len(valid) else np.zeros(0, dtype=bool)
    leader = np.maximum.accumulate(np.where(is_first, np.arange(len(valid)), 0))
    conflicts = int(np.count_nonzero(ordered.payload != ordered.payload[leader]))
    return BatchSurvivors(ordered.take(is_first), ordered.take(~is_first), conflicts)


def decide(first: Facts, existing: Facts) -> Fates:
    """Compare each first copy with the row that the table has for its id, if any.

    `existing`: rows of the table, at most one for an id (its event_us and verdict are not used).
    The earlier one by (Kafka timestamp, partition, offset) stays, whichever came first to the lake.
    """
    if not len(existing):
        return Fates(first, first.take(np.zeros(len(first), dtype=bool)), 0, 0, 0)
    match = _match(first, existing)
    found = match >= 0
    row = existing.take(np.where(found, match, 0))
    own = found & (row.partition == first.partition) & (row.offset == first.offset)
    replaces = found & ~own & _earlier(first, row)
    duplicate = found & ~own & ~replaces
    return Fates(
        insert=first.take(~found),
        replace=first.take(replaces),
        duplicates=int(np.count_nonzero(duplicate)),
        conflicts=int(np.count_nonzero((duplicate | replaces) & (row.payload != first.payload))),
        already_present=int(np.count_nonzero(own)),
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


def _earlier(left: Facts, right: Facts) -> Flags:
    same_time = left.kafka_us == right.kafka_us
    same_partition = left.partition == right.partition
    result: Flags = (left.kafka_us < right.kafka_us) | (
        same_time & ((left.partition < right.partition) | (same_partition & (left.offset < right.offset)))
    )
    return result


def count_verdicts(facts: Facts) -> dict[str, int]:
    """How many records are valid, rejected and tombstones."""
    names = {"valid": VALID, "rejected": REJECTED, "tombstone": TOMBSTONE}
    return {name: int(np.count_nonzero(facts.verdict == value)) for name, value in names.items()}
