"""What a run remembers between its batches: others' commits are noticed, its own are not taken for theirs. Without Spark."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.lake.tables import DLQ, SILVER
from pipelines.silver.dedup.lookup import DeadLetterLookup, SilverLookup
from pipelines.silver.facts import REJECTED, VALID, Coverage, Facts
from pipelines.silver.judge import History, Judged, Known, KnownRejected, LetterStates, judge, sort_batch
from pipelines.silver.progress import Progress

NOON_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


@pytest.fixture
def progress() -> Progress:
    """A run that saw Silver at version 4 and the dead letters at version 2."""
    lookup = SilverLookup("silver", [], window_ms=24 * HOUR_MS, skew_ms=HOUR_MS)
    return Progress(lookup, DeadLetterLookup("dlq", {}), {str(SILVER): 4, str(DLQ): 2}, lookup_version=4)


def _judged() -> Judged:
    """Two new events and a dead letter."""
    verdicts = np.array([VALID, VALID, REJECTED])
    numbers, zeros = np.arange(3), np.zeros(3, dtype=np.int64)
    facts = Facts(zeros, numbers, zeros + NOON_MS, zeros + NOON_MS * 1000, verdicts, numbers + 10, zeros, zeros)
    none = np.zeros(2, dtype=bool)
    batch, nothing = sort_batch(facts, LetterStates(none, none)), facts.take(slice(0))
    rejected = KnownRejected(none[:1], none[:1], nothing, Coverage({}))
    return judge(Known(batch, nothing, rejected), History(Coverage({}), Coverage({})), corrects=False)


def test_written_rows_and_dead_letters_are_remembered(progress: Progress) -> None:
    progress.wrote(_judged(), {str(SILVER): 5, str(DLQ): 3})

    known, _ = progress.lookup.recent.find(np.array([10, 11, 12]))
    assert known.tolist() == [True, True, False]
    assert progress.dead_letters.ends == {0: 3}


def test_own_commits_need_no_second_look(progress: Progress) -> None:
    progress.wrote(_judged(), {str(SILVER): 5, str(DLQ): 3})

    assert progress.seen == {str(SILVER): 5, str(DLQ): 3}
    assert progress.lookup_version == 5


def test_commit_of_another_before_the_own_one_is_looked_at_by_the_next_batch(progress: Progress) -> None:
    progress.wrote(_judged(), {str(SILVER): 6, str(DLQ): 3})

    assert progress.seen == {str(SILVER): 4, str(DLQ): 3}
    assert progress.lookup_version == 4


def test_forgetting_leaves_what_is_known_of_restores_and_that_the_run_has_begun(progress: Progress) -> None:
    progress.history, progress.has_begun = History(Coverage({}), Coverage({})), True
    progress.forget()

    remembered = [progress.lookup_version, progress.history, progress.dead_letters.ends]
    assert remembered == [None, None, None]
    assert progress.seen == {str(SILVER): 4, str(DLQ): 2}
    assert progress.has_begun
    progress.start_over()
    assert not progress.has_begun
