"""What batches wrote before their ledger row: known by the `userMetadata` of their commits, whoever comes after a crash."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.lake.delta_log.commit import Commit
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.restores import without_taken_back
from pipelines.lake.ledger_row import BatchRow
from pipelines.lake.places import absolute

_NEWEST = 50
"""Commits of the job's own that are looked through: one that died is among the last."""
_AT_MOST = 2000
"""Commits looked through at all: others may have compacted the table many times since."""


@dataclass(frozen=True)
class BatchCommit:
    """A commit that a batch made; `row` is its ledger row as far as it was known then."""

    version: int
    is_merge: bool
    row: BatchRow

    @property
    def batch(self) -> tuple[str, int]:
        """Generation and number of the batch."""
        return self.row.generation, self.row.batch_id


def batch_commits(path: str, job: str) -> list[BatchCommit]:
    """Commits of the job's batches among the newest of the table at `path`, oldest first; read without Spark.

    Those that a RESTORE took back are left out, and those of others, whatever their metadata says.
    """
    found: list[BatchCommit] = []
    for commit in without_taken_back(newest_commits(absolute(path), _version(path), at_most=_AT_MOST)):
        if (one := _of_batch(commit, job)) is not None:
            found.append(one)
            if len(found) == _NEWEST:
                break
    return found[::-1]


def find_batch(path: str, job: str, generation: str, batch_id: int) -> BatchCommit | None:
    """The newest commit of one batch in the table at `path`, as far back as the log reaches; None where there is none."""
    commits = newest_commits(absolute(path), _version(path))
    mine = (one for commit in commits if (one := _of_batch(commit, job)) is not None)
    return next((one for one in mine if one.batch == (generation, batch_id)), None)


def _of_batch(commit: Commit, job: str) -> BatchCommit | None:
    row = commit.batch_row(job)
    return None if row is None else BatchCommit(commit.version, commit.operation == "MERGE", row)


def _version(path: str) -> int:
    return existing_table(absolute(path)).version()
