"""Silver's batches that died between their first write and their ledger row, and what the ledger says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.lake.ledger.attempts import BatchCommit, batch_commits
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.tables import DLQ, SILVER
from pipelines.silver.facts import Coverage
from pipelines.silver.judge import History

PART = "part:"
"""Prefix of the generation of a ledger row that counts only what a batch left in the tables when it died."""


@dataclass(frozen=True)
class Attempt:
    """The commits of one batch in Silver and among the dead letters."""

    silver: tuple[BatchCommit, ...]
    letters: tuple[BatchCommit, ...]

    @property
    def row(self) -> BatchRow:
        """The ledger row as the batch was judged when it was first tried."""
        return (*self.silver, *self.letters)[0].row

    def part(self) -> BatchRow:
        """The ledger row of what it left: the rest of its records, which leave no row, is counted by who reads them again.

        It covers no offsets: a copy or a tombstone of the batch had no fate yet.
        """
        first = self.row
        appended = [commit.row for commit in self.silver if not commit.is_merge]
        inserted, late = (sum(getattr(row, name) for row in appended) for name in ("inserted", "late"))
        # A MERGE comes before its batch's append.
        replaced = first.replaced if self.silver else 0
        dead_lettered = sum(commit.row.dead_lettered for commit in self.letters)
        versions = {
            **({str(SILVER): self.silver[-1].version} if self.silver else {}),
            **({str(DLQ): self.letters[-1].version} if self.letters else {}),
        }
        return BatchRow(
            job=first.job,
            generation=PART + first.generation,
            batch_id=first.batch_id,
            offsets={},
            rows_read=inserted + replaced + dead_lettered,
            inserted=inserted,
            replaced=replaced,
            dead_lettered=dead_lettered,
            late=late,
            versions=versions,
            started_at=first.started_at,
        )


def with_written(judged: BatchRow, part: BatchRow) -> BatchRow:
    """The ledger row of a batch that is tried again: what an earlier try of it wrote (`part`) was `judged` as present."""
    names = ("inserted", "replaced", "dead_lettered")
    written = {name: getattr(part, name) for name in names}
    return replace(
        judged,
        **{name: getattr(judged, name) + count for name, count in written.items()},
        already_present=judged.already_present - sum(written.values()),
        late=judged.late + part.late,
    )


def find_attempts(job: str, silver: str, dlq: str) -> dict[tuple[str, int], Attempt]:
    """The batches behind the tables' newest commits, by generation and number."""
    events, letters = batch_commits(silver, job), batch_commits(dlq, job)
    keys = dict.fromkeys(commit.batch for commit in (*events, *letters))
    return {
        key: Attempt(
            tuple(commit for commit in events if commit.batch == key), tuple(commit for commit in letters if commit.batch == key)
        )
        for key in keys
    }


def settle(ledger: Ledger, job: str, attempts: dict[tuple[str, int], Attempt], own: tuple[str, int] | None) -> None:
    """Count what other runs' batches left when they died: nobody else may ever come who knows their checkpoint.

    Call it with the lease held, under which each batch writes its tables and its ledger row. `own`: the batch that is about
    to run, which says all of itself; None where none is.
    """
    known = ledger.known(job)
    for key, attempt in attempts.items():
        generation, batch_id = key
        if key != own and key not in known and (PART + generation, batch_id) not in known:
            ledger.record(attempt.part())


def history_of(covered: Mapping[int, Sequence[tuple[int, int]]], attempts: Mapping[tuple[str, int], Attempt]) -> History:
    """Join the ranges that the ledger has as `covered` with what the batches of `attempts` read."""
    tried = {partition: list(ranges) for partition, ranges in covered.items()}
    for attempt in attempts.values():
        for partition, (start, end) in attempt.row.offsets.items():
            tried.setdefault(int(partition), []).append((start, end))
    return History(Coverage(covered), Coverage(tried))
