"""A row of the batch ledger, as a batch says it and as the ledger has it: typed, with its kind; the JSON of columns ends here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

COUNTS = (
    "rows_read",
    "inserted",
    "replaced",
    "duplicate",
    "conflict",
    "already_present",
    "dead_lettered",
    "tombstone",
    "late",
)
_PLAIN = ("job", "generation", "batch_id", *COUNTS, "started_at", "committed_at", "duration_ms")
_DECODED = ("offsets", "holes", "versions")
"""Columns that the table has as JSON."""
_STORED = (*_PLAIN, *_DECODED)
_SILVER_VERSION = "silver_version"


class Kind(StrEnum):
    """What a row of the ledger stands for."""

    BATCH = "batch"
    """A batch of a stream, of a replay or of a repair: whatever had a checkpoint."""
    REPLAY = "replay"
    """A replay of dead letters: it reads no range of offsets."""
    PART = "part"
    """What a batch that died left in the tables; the next run counts the rest of its records."""
    REBUILD = "rebuild"
    """A rebuild that was put in the place of the live tables."""
    VOID_EVENTS = "void"
    """Undoes batches whose events were taken back: counts below zero, and their offsets are no longer covered."""
    VOID_LETTERS = "void-dlq"
    """Undoes the dead letters of batches."""

    @property
    def prefix(self) -> str:
        """How the generation of a row of this kind begins: the table has no column for it. Empty for a batch."""
        if self is Kind.BATCH:
            return ""
        return f"{self}-" if self in (Kind.REPLAY, Kind.REBUILD) else f"{self}:"

    @staticmethod
    def of(generation: str) -> Kind:
        """The kind of the row that has this generation."""
        # Asked of each row of a ledger with a million: nearly all are batches.
        if not generation.startswith(_PREFIXES):
            return Kind.BATCH
        return next(kind for kind in Kind if kind.prefix and generation.startswith(kind.prefix))


_PREFIXES = tuple(kind.prefix for kind in Kind if kind.prefix)


@dataclass(frozen=True)
class BatchRow:
    """What one batch did; counts are records.

    `rows_read` = inserted + replaced + duplicate + already_present + dead_lettered + tombstone. `conflict` (same id,
    another payload) and `late` are parts of the others.
    """

    job: str
    generation: str
    batch_id: int
    offsets: Mapping[str, list[int]]
    """[start, end) of each Kafka partition; of Gold `silver_version`: [first, last]."""
    rows_read: int = 0
    inserted: int = 0
    replaced: int = 0
    duplicate: int = 0
    conflict: int = 0
    already_present: int = 0
    dead_lettered: int = 0
    tombstone: int = 0
    late: int = 0
    holes: Mapping[str, list[list[int]]] = field(default_factory=dict)
    """Ranges [start, end) inside `offsets` of which the batch saw no record, for each partition that has any."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """By table name the version that the batch wrote; of Bronze in a row of Silver the one that it had come to."""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def kind(self) -> Kind:
        """What the row stands for."""
        return Kind.of(self.generation)

    @property
    def is_void(self) -> bool:
        """Tell whether the row undoes batches instead of being one."""
        return self.kind in (Kind.VOID_EVENTS, Kind.VOID_LETTERS)

    @property
    def spans(self) -> dict[int, tuple[int, int]]:
        """`offsets` by the number of the Kafka partition; empty for Gold."""
        return {int(name): (start, stop) for name, (start, stop) in self.offsets.items() if name.isdecimal()}

    @property
    def silver_versions(self) -> tuple[int, int] | None:
        """First and last version of Silver that a batch of Gold read; None for other jobs."""
        found = self.offsets.get(_SILVER_VERSION)
        return (found[0], found[1]) if found else None

    def metadata(self) -> dict[str, Any]:
        """The row as it stands in a commit's `userMetadata`: a batch that runs again after a crash recovers it."""
        return {**{one.name: getattr(self, one.name) for one in fields(BatchRow)}, "started_at": self.started_at.isoformat()}

    def with_versions(self, versions: Mapping[str, int]) -> BatchRow:
        """The same row with the table versions that were written."""
        return replace(self, versions=versions)

    def committed(self) -> LedgerRow:
        """The row as the ledger gets it, committed now."""
        now = datetime.now(UTC)
        taken = int((now - self.started_at).total_seconds() * 1000)
        return LedgerRow(**{one.name: getattr(self, one.name) for one in fields(BatchRow)}, committed_at=now, duration_ms=taken)

    @staticmethod
    def from_metadata(metadata: Mapping[str, Any]) -> BatchRow:
        """The row that `metadata` was made from."""
        known = {f.name: metadata[f.name] for f in fields(BatchRow) if f.name in metadata}
        return BatchRow(**{**known, "started_at": datetime.fromisoformat(metadata["started_at"])})


@dataclass(frozen=True, kw_only=True)
class LedgerRow(BatchRow):
    """A row of `ops.batch_ledger`; `duration_ms` is from its start to its commit."""

    committed_at: datetime
    duration_ms: int = 0
    said_kind: str | None = None
    """What a column `kind` says, which tables of a later version may have; unknown words are passed over."""

    @property
    def kind(self) -> Kind:
        """What the row stands for: as it says itself, otherwise by its generation."""
        if self.said_kind:
            with suppress(ValueError):
                return Kind(self.said_kind)
        return Kind.of(self.generation)

    def columns(self) -> dict[str, Any]:
        """The row by the table's columns."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "offsets": json.dumps(self.offsets),
            "holes": json.dumps(self.holes) if self.holes else None,
            "versions": json.dumps(self.versions),
        }

    @staticmethod
    def from_columns(columns: Mapping[str, Any]) -> LedgerRow:
        """The row that has these columns; those that older tables lack are empty, and counts without a number are 0."""
        found = {name: columns[name] for name in _STORED if columns.get(name) is not None}
        for name in _DECODED:
            if text := found.pop(name, None):
                found[name] = json.loads(text)
        found.setdefault("offsets", {})
        found.setdefault("started_at", found["committed_at"])
        return LedgerRow(**found, said_kind=columns.get("kind"))
