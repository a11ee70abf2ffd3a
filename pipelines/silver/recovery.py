"""Resume after a crash: read what other runs did, and count once what an earlier try of the running batch left."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.silver.accounting import recovered_row
from pipelines.silver.attempts import PART, Attempt, find_attempts, history_of, settle
from pipelines.silver.batch import JOB, Batch, Targets
from pipelines.silver.judge import History
from pipelines.silver.progress import Progress


@dataclass(frozen=True)
class EarlierTry:
    """What an earlier try of the running batch left: its commits, and whether its ledger row was written."""

    attempt: Attempt | None = None
    is_recorded: bool = False


def recover(batch: Batch, targets: Targets, ledger: Ledger, progress: Progress) -> tuple[History, EarlierTry]:
    """Read what other runs read, and count what they left when they died.

    With it what an earlier try of `batch` left, if `batch` is the run's first: a later one had none.
    """
    own, earlier = targets.key(batch), EarlierTry()
    attempts = find_attempts(JOB, targets.silver, targets.dlq)
    settle(ledger, JOB, attempts, own)
    if not progress.has_begun:
        earlier = EarlierTry(attempts.get(own), own in ledger.known(JOB))
    history = history_of(ledger.covered(JOB), attempts)
    progress.history, progress.has_begun = history, True
    return history, earlier


def complete_row(row: BatchRow, attempt: Attempt, batch: Batch, ledger: Ledger) -> BatchRow:
    """Give the row that counts the batch with its earlier try (`attempt`); `row` itself where another run counted that."""
    if (PART + row.generation, row.batch_id) in ledger.known(JOB):
        return row
    return recovered_row(row, attempt, has_poison=bool(len(batch.poison)))
