"""Decide what becomes of a batch's records: facts in, a decision out, without Spark, I/O or clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.silver.dedup.fates import (
    REJECTED,
    TOMBSTONE,
    VALID,
    BatchSurvivors,
    Coverage,
    Facts,
    Fates,
    Flags,
    decide,
    has_id,
    split_batch,
)


@dataclass(frozen=True)
class LetterStates:
    """For each of n records whether it is a dead letter in that state."""

    open: Flags
    discarded: Flags


@dataclass(frozen=True)
class SortedBatch:
    """A batch's records by their verdict, and of those that pass the first copy of each id.

    `reopened`: records that pass now and are open dead letters; `discarded`: how many pass now and were discarded, which
    leaves them out.
    """

    facts: Facts
    valid: Facts
    rejected: Facts
    tombstones: Facts
    survivors: BatchSurvivors
    reopened: Facts
    discarded: int


@dataclass(frozen=True)
class History:
    """Records that other runs of the job read: `covered` with a fate, `tried` also by a batch that died before its ledger row."""

    covered: Coverage
    tried: Coverage


@dataclass(frozen=True)
class KnownRejected:
    """What the tables have of the rejected records.

    `letters`: which are dead letters; `rows`: which are rows of Silver; `existing`: rows of Silver with the id of one;
    `taken_back`: ranges whose dead letters were taken back.
    """

    letters: Flags
    rows: Flags
    existing: Facts
    taken_back: Coverage


@dataclass(frozen=True)
class Known:
    """All that a decision rests on: the batch, the rows of Silver with a survivor's id, and what is known of the rejected."""

    batch: SortedBatch
    existing: Facts
    rejected: KnownRejected


@dataclass(frozen=True)
class Judged:
    """The decision about a batch; `rejected_before`: rejected records that have their fate already."""

    batch: SortedBatch
    fates: Fates
    rejected_before: Flags

    @property
    def dead_letters(self) -> Facts:
        """The rejected records that have no fate yet."""
        return self.batch.rejected.take(~self.rejected_before)


def sort_batch(facts: Facts, letters: LetterStates) -> SortedBatch:
    """Sort records by verdict, and find the first copies. `letters`: states of the records that pass, in their order."""
    valid, rejected, tombstones = (facts.take(facts.verdict == verdict) for verdict in (VALID, REJECTED, TOMBSTONE))
    discarded = int(np.count_nonzero(letters.discarded))
    survivors = split_batch(valid.take(~letters.discarded) if discarded else valid)
    return SortedBatch(facts, valid, rejected, tombstones, survivors, valid.take(letters.open), discarded)


def judge(known: Known, history: History, *, corrects: bool) -> Judged:
    """Decide about each record of a batch; `corrects`: rows whose record reads differently now are rewritten."""
    fates = decide(known.batch.survivors.first, known.existing, corrects=corrects)
    return Judged(known.batch, fates, _rejected_before(known.batch.rejected, known.rejected, history))


def may_have_passed(rejected: Facts, letters: Flags, history: History) -> Flags:
    """Which rejected records were read before and are no dead letters: they may have passed under other rules."""
    return ~letters & history.tried.has(rejected)


def _rejected_before(rejected: Facts, known: KnownRejected, history: History) -> Flags:
    """Which rejected records are dead letters, or passed under other rules: rows of Silver, or copies.

    A copy leaves no row behind. It is known by its event's row, unless a dead letter may have been taken back there.
    """
    passed = may_have_passed(rejected, known.letters, history)
    if passed.any():
        counted = history.covered.has(rejected) & ~known.taken_back.has(rejected)
        passed &= counted & has_id(rejected, known.existing) | known.rows
    return known.letters | passed
