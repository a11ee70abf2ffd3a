"""Decide what becomes of a batch's records: facts in, a decision out, without Spark, I/O or clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.silver.facts import REJECTED, TOMBSTONE, VALID, Coverage, Facts, Flags, has_id, is_earlier, match_ids


@dataclass(frozen=True)
class LetterStates:
    """For each of n records whether it is a dead letter in that state."""

    open: Flags
    discarded: Flags


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
    match = match_ids(first, existing)
    found = match >= 0
    row = existing.take(np.where(found, match, 0))
    own = found & (row.partition == first.partition) & (row.offset == first.offset)
    replaces = found & ~own & is_earlier(first, row)
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
