"""Count what was decided about a batch: the decision in, a ledger row out, without Spark, I/O or clock."""

from __future__ import annotations

import numpy as np

from pipelines.lake.ledger.ledger import BatchRow
from pipelines.silver.attempts import Attempt, with_written
from pipelines.silver.batch import JOB, Batch
from pipelines.silver.facts import Coverage, Facts, Flags
from pipelines.silver.judge import Judged


def ledger_row(judged: Judged, covered: Coverage, batch: Batch, generation: str, *, late_after_seconds: int) -> BatchRow:
    """Count the records of a batch by their fate; one that has its fate by an earlier run is `already_present`.

    A copy or a tombstone leaves no row behind: that an earlier run counted it, only the ledger knows (`covered`).
    """
    fates, records = judged.fates, judged.batch
    in_batch, in_table = records.survivors.copies, fates.copies
    old_tombstones = covered.has(records.tombstones)
    old_in_batch, old_in_table = (_counted_before(copies.records, judged, covered) for copies in (in_batch, in_table))
    copies_in_batch, conflicts_in_batch = in_batch.count(~old_in_batch)
    copies_in_table, conflicts_in_table = in_table.count(~old_in_table)
    old = sum(map(_count, (judged.rejected_before, old_tombstones, old_in_batch, old_in_table)))
    late_us = late_after_seconds * 1_000_000
    return BatchRow(
        job=JOB,
        generation=generation,
        batch_id=batch.number,
        offsets=records.facts.offset_ranges(),
        holes=records.facts.offset_holes(),
        rows_read=len(records.facts),
        inserted=len(fates.insert),
        replaced=len(fates.replace),
        duplicate=copies_in_batch + copies_in_table,
        conflict=conflicts_in_batch + conflicts_in_table + fates.replace_conflicts,
        already_present=fates.already_present + old + records.discarded,
        dead_lettered=_count(~judged.rejected_before),
        tombstone=_count(~old_tombstones),
        late=sum(_count(rows.delayed_more(late_us)) for rows in (fates.insert, fates.replace)),
        started_at=batch.started,
    )


def recovered_row(row: BatchRow, attempt: Attempt, *, has_poison: bool) -> BatchRow:
    """Count a batch whose earlier try died (`attempt`) and whose writes nobody counted: as it was judged the first time.

    The first try knew nothing of the poison: with poison what it left counts, but not how it judged the rest.
    """
    return with_written(row, attempt.part()) if has_poison else attempt.row


def _counted_before(copies: Facts, judged: Judged, covered: Coverage) -> Flags:
    """Which copies were counted by an earlier run; an open dead letter was not counted as a copy."""
    return covered.has(copies) & ~np.isin(copies.coordinates(), judged.batch.reopened.coordinates())


def _count(flags: Flags) -> int:
    return int(np.count_nonzero(flags))
