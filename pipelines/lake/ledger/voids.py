"""Batches of the ledger whose writes were taken back: rows that undo their counts, and their coverage no longer counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LedgerRow = Mapping[str, Any]
"""A row of `ops.batch_ledger` by column name."""

EVENTS, LETTERS = "void:", "void-dlq:"
"""Prefixes of the generation of a row that undoes batches: their events (and coverage), or their dead letters."""
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
    def of(rows: Iterable[LedgerRow], kind: str = EVENTS) -> Voided:
        """Read the void rows among `rows` (generation and versions are looked at)."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            if row["generation"].startswith(kind):
                versions = json.loads(row["versions"])
                found.setdefault(row["generation"].removeprefix(kind), []).append((versions[_FROM], versions[_TO]))
        return Voided(found)

    def has(self, row: LedgerRow) -> bool:
        """Tell whether the batch of `row` was taken back."""
        return any(first <= row["batch_id"] < end for first, end in self.ranges.get(row["generation"], ()))


def is_void_row(row: LedgerRow) -> bool:
    """Tell whether `row` undoes batches instead of being one."""
    return bool(row["generation"].startswith((EVENTS, LETTERS)))


def standing(rows: Iterable[LedgerRow], kind: str = EVENTS) -> list[LedgerRow]:
    """The rows of batches that still stand: neither void rows nor batches that one undoes."""
    known = list(rows)
    voided = Voided.of(known, kind)
    return [row for row in known if not is_void_row(row) and not voided.has(row)]


def void_row(batches: Sequence[LedgerRow], kind: str) -> dict[str, Any]:
    """Give the ledger row that undoes `batches`, a run of one generation's: their counts below zero, no offsets.

    What stays in the tables stays counted: taking events back leaves the dead letters, and the other way round. It bears
    the time of the last of them, so that whoever looks at a window of time sees them cancel out.
    """
    sums = {name: -sum(row[name] for row in batches) for name in _UNDONE[kind]}
    last = max(batches, key=lambda row: int(row["batch_id"]))
    return {
        "job": last["job"],
        "generation": f"{kind}{last['generation']}",
        "batch_id": min(row["batch_id"] for row in batches),
        "offsets": "{}",
        **dict.fromkeys(
            ("inserted", "replaced", "duplicate", "conflict", "already_present", "dead_lettered", "tombstone", "late"), 0
        ),
        **sums,
        "rows_read": sum(count for name, count in sums.items() if name not in _OUTSIDE),
        "versions": json.dumps({_FROM: min(row["batch_id"] for row in batches), _TO: last["batch_id"] + 1}),
        "started_at": last["started_at"],
        "committed_at": last["committed_at"],
        "duration_ms": 0,
    }
