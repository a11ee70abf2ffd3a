"""Batches of the ledger whose writes were taken back: rows that undo their counts, and their coverage no longer counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.lake.ledger_row import COUNTS, Kind, LedgerRow

EVENTS, LETTERS = Kind.VOID_EVENTS, Kind.VOID_LETTERS
"""What was taken back of batches: their events (and coverage), or their dead letters."""
_FROM, _TO = "void.from", "void.to"

_UNDONE = {
    EVENTS: ("inserted", "replaced", "duplicate", "conflict", "already_present", "tombstone", "late"),
    LETTERS: ("dead_lettered",),
}
_OUTSIDE = ("conflict", "late")
"""Parts of other counts: not in the sum that `rows_read` is."""


@dataclass(frozen=True)
class Voided:
    """For each generation the ranges [from, to) of batches whose `kind` (EVENTS or LETTERS) was taken back."""

    ranges: Mapping[str, Sequence[tuple[int, int]]]

    @staticmethod
    def of(rows: Iterable[LedgerRow], kind: Kind = EVENTS) -> Voided:
        """Read the void rows of `kind` among `rows`."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            if row.kind is kind:
                undone = row.generation.removeprefix(kind.prefix)
                found.setdefault(undone, []).append((row.versions[_FROM], row.versions[_TO]))
        return Voided(found)

    def has(self, row: LedgerRow) -> bool:
        """Tell whether the batch of `row` was taken back."""
        ranges = self.ranges.get(row.generation)
        return ranges is not None and any(first <= row.batch_id < end for first, end in ranges)


def standing(rows: Iterable[LedgerRow], kind: Kind = EVENTS) -> list[LedgerRow]:
    """The rows of batches that still stand: neither void rows nor batches that one of `kind` undoes."""
    known = list(rows)
    voided = Voided.of(known, kind)
    return [row for row in known if not voided.has(row) and not row.is_void]


def void_row(batches: Sequence[LedgerRow], kind: Kind) -> LedgerRow:
    """Give the ledger row that undoes `batches`, a run of one generation's: their counts below zero, no offsets.

    What stays in the tables stays counted: taking events back leaves the dead letters, and the other way round. It has
    the time of the last of them, so that a reader of a window of time sees them cancel out.
    """
    sums = {name: -sum(int(getattr(row, name)) for row in batches) for name in _UNDONE[kind]}
    first, last = min(row.batch_id for row in batches), max(batches, key=lambda row: row.batch_id)
    counts: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), **sums}
    counts["rows_read"] = sum(count for name, count in sums.items() if name not in _OUTSIDE)
    return LedgerRow(
        job=last.job,
        generation=f"{kind.prefix}{last.generation}",
        batch_id=first,
        offsets={},
        **counts,
        versions={_FROM: first, _TO: last.batch_id + 1},
        started_at=last.started_at,
        committed_at=last.committed_at,
    )
