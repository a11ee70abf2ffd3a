"""A stream with work that nobody runs, that is stopped, stuck, far behind, or that takes ever longer for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.facts import Facts
from lakehouse.operations.doctor.pace import _half, check_pace
from lakehouse.operations.doctor.streams import check_streams, interval_seconds, silver_waits, streams_of
from lakehouse.operations.status.facts import BreakerStatus
from pipelines.lake.tables import BRONZE, SILVER
from tests.lakehouse.operations.doctor.conftest import NOW, held, row


def locked(facts: Facts, job: str = "silver", **holder: Any) -> Facts:
    checkpoints = {**facts.checkpoints, job: replace(facts.checkpoints[job], lock=held(**holder))}
    return replace(facts, checkpoints=checkpoints)


def aged(facts: Facts, job: str, minutes: float) -> Facts:
    rows = [replace(one, committed_at=NOW - timedelta(minutes=minutes)) for one in facts.rows[job]]
    return replace(facts, rows={**facts.rows, job: rows})


@pytest.fixture
def behind(with_ends: Callable[..., Facts]) -> Facts:
    """Silver has not read 8 rows of Bronze."""
    return with_ends((20, 20, 12), (10, 10, 10))


def test_stream_that_nobody_runs_is_a_warning_at_first_and_critical_after_minutes(behind: Facts) -> None:
    (soon,) = check_streams(behind)
    assert (soon.id, soon.severity, soon.confidence) == ("stream-down", "warning", "likely")
    (late,) = check_streams(aged(behind, "silver", 7))
    assert (late.severity, late.confidence) == ("critical", "certain")
    assert "8 records wait" in late.evidence
    assert "batch 0 was its last, 0:07:00 ago" in late.evidence
    assert late.commands[0] == "lakehouse up --only silver --config my.yaml"


def test_stream_on_another_generation_is_started_there(behind: Facts) -> None:
    checkpoints = {**behind.checkpoints, "silver": replace(behind.checkpoints["silver"], path="ck/silver/g7")}
    (found,) = check_streams(replace(behind, checkpoints=checkpoints))
    assert found.commands[0] == "python pipelines/silver/silver_processing.py --config my.yaml --checkpoint-path ck/silver/g7"


def test_lag_of_bronze_is_kafkas(with_ends: Callable[..., Facts]) -> None:
    (found,) = check_streams(with_ends((25, 20, 20), (10, 10, 10)))
    assert "5 records wait" in found.evidence
    assert "retention" in found.at_stake


def test_gold_waits_for_silvers_later_versions(sound: Facts) -> None:
    rows = {**sound.rows, "silver": [*sound.rows["silver"], row("silver", 1, {"0": [20, 23]}, versions={str(SILVER): 5})]}
    assert [stream.waiting for stream in streams_of(replace(sound, rows=rows))] == [0, 0, 3]


def test_lawful_holes_at_the_end_do_not_wait(with_ends: Callable[..., Facts], sound: Facts) -> None:
    marker = [*sound.rows["bronze"][:1], replace(sound.rows["bronze"][1], rows_read=7, inserted=7)]
    assert silver_waits(with_ends((20, 20, 19), (10, 10, 10), rows={**sound.rows, "bronze": marker})) == 0
    assert silver_waits(with_ends((20, 20, 19), (10, 10, 10))) == 1


def test_records_that_a_repair_put_behind_silver_wait_until_it_came_back_for_them(sound: Facts) -> None:
    def at(version: int) -> dict[str, Any]:
        """Bronze's batch wrote this version, Silver's read all before it."""
        return {"versions": {str(BRONZE): version}}

    first = [row("bronze", 0, {"0": [0, 8], "1": [0, 10]}, **at(1)), row("bronze", 1, {"0": [12, 20], "1": [10, 10]}, **at(2))]
    repair = row("bronze", 0, {"0": [8, 12]}, generation="repair", **at(3))
    silver = row("silver", 0, {"0": [0, 20], "1": [0, 10]}, holes={"0": [[8, 12]]}, **at(3))
    filled = {**sound.rows, "bronze": [*first, repair], "silver": [silver]}
    assert silver_waits(replace(sound, rows=filled)) == 4
    split = [row("silver", 0, {"0": [0, 8], "1": [0, 10]}, **at(2)), row("silver", 1, {"0": [12, 20]}, **at(3))]
    assert silver_waits(replace(sound, rows={**filled, "silver": split})) == 4
    (found,) = check_streams(replace(sound, rows=filled))
    assert (found.id, found.title) == ("stream-down", "The stream silver does not run")
    assert "4 records wait" in found.evidence

    back = row("silver", 1, {"0": [8, 12]}, **at(4))
    assert silver_waits(replace(sound, rows={**filled, "silver": [silver, back]})) == 0
    # Of what a replay read again nothing is new, and of what Silver saw no record later there is none.
    again = row("bronze", 0, {"0": [8, 12]}, generation="replay", inserted=0, already_present=4, **at(3))
    assert silver_waits(replace(sound, rows={**filled, "bronze": [*first, again]})) == 0
    hole = row("silver", 1, {"0": [8, 12]}, holes={"0": [[9, 12]]}, **at(4))
    assert silver_waits(replace(sound, rows={**filled, "silver": [silver, hole]})) == 0


def test_checkpoint_without_locks_is_judged_by_time_alone(behind: Facts) -> None:
    checkpoints = {**behind.checkpoints, "silver": replace(behind.checkpoints["silver"], is_guarded=False)}
    there = replace(behind, checkpoints=checkpoints)
    assert list(check_streams(there)) == []
    (found,) = check_streams(aged(there, "silver", 7))
    assert found.confidence == "possible"


def test_stream_that_runs_and_commits_nothing_is_stuck(behind: Facts) -> None:
    assert list(check_streams(locked(behind))) == []
    (found,) = check_streams(aged(locked(behind), "silver", 7))
    assert (found.id, found.severity) == ("stream-stuck", "warning")
    fresh = aged(locked(behind, since=(NOW - timedelta(minutes=1)).isoformat()), "silver", 7)
    assert list(check_streams(fresh)) == []


def test_stopped_process_is_named_with_the_signal_that_lets_it_go_on(behind: Facts) -> None:
    (found,) = check_streams(locked(behind, is_stopped=True))
    assert (found.id, found.severity) == ("stream-stopped", "critical")
    assert found.commands[0] == "kill -CONT 4711"


def test_silver_that_the_breaker_holds_is_not_called_down(behind: Facts) -> None:
    breaker = BreakerStatus("open", NOW, None, 0.9, 1000, "flood")
    held_back = replace(behind, status=replace(behind.status, breaker=breaker))
    assert list(check_streams(held_back)) == []


def test_lag_that_takes_long_to_work_off_is_large(with_ends: Callable[..., Facts]) -> None:
    facts = locked(with_ends((20_000_000, 20, 20), (10, 10, 10)), "bronze")
    (found,) = check_pace(facts)
    assert (found.id, found.severity, found.playbook) == ("lag-large", "warning", "stale-data")
    assert "19,999,980 records wait" in found.evidence
    assert list(check_pace(locked(with_ends((1000, 20, 20), (10, 10, 10)), "bronze"))) == []


def spiral(facts: Facts, seconds: list[float], *, records_a_second: float | None = None) -> Facts:
    """Batches that take so long, of as many records as that gives; of one each by default, so that a record gets dearer."""
    rows = [
        row("silver", n, {"0": [n, n + 1]}, duration_ms=int(1000 * took), rows_read=round(took * (records_a_second or 1 / took)))
        for n, took in enumerate(seconds)
    ]
    return replace(facts, rows={**facts.rows, "silver": rows})


def test_batches_that_take_ever_longer_than_the_trigger_are_the_death_spiral(behind: Facts) -> None:
    (found,) = (one for one in check_pace(spiral(behind, [2, 3, 4, 6, 9, 14, 20, 31, 44])))
    assert (found.id, found.severity, found.confidence) == ("trigger-overrun", "warning", "likely")
    assert found.playbook == "stale-data"
    assert "31.0 s (median), 3 of those before them 3.0 s; the trigger is 1 s" in found.evidence
    assert "A record takes 10.3 times as long: the batches are too large." in found.evidence
    assert found.commands[0] == "LAKEHOUSE__SILVER__MAX_BYTES_PER_TRIGGER=32m lakehouse up --only silver --config my.yaml"


def test_batches_that_are_only_larger_are_not_made_smaller(behind: Facts) -> None:
    seconds = [2.0, 3, 4, 6, 9, 14, 20, 31, 44]
    (found,) = check_pace(spiral(behind, seconds, records_a_second=1000))
    assert (found.id, found.playbook) == ("trigger-overrun", "stale-data")
    assert "A record takes no longer: there are more of them." in found.evidence
    assert found.commands == ("lakehouse status --config my.yaml",)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param([30.0] * 9, id="long but steady"),
        pytest.param([1, 1, 1, 2, 2, 3, 4, 5, 6], id="rising but short"),
        pytest.param([2, 3, 4, 6, 9, 14, 20, 31], id="too few"),
    ],
)
def test_other_batches_are_not(seconds: list[float], behind: Facts) -> None:
    assert list(check_pace(spiral(behind, seconds))) == []


def test_sizes_and_triggers_are_read_as_spark_writes_them() -> None:
    assert [_half(size) for size in ("64m", "1g", "100kb", "7", "odd")] == ["32m", "512m", "50kb", "3", "odd"]
    assert [interval_seconds(text) for text in ("1 second", "5 minutes", "500 milliseconds", "available-now")] == [
        1,
        300,
        0.5,
        None,
    ]


def test_causes_stand_before_their_effects(behind: Facts) -> None:
    found = diagnose(replace(aged(behind, "silver", 9), topic=None, topic_is_missing=True))
    assert [one.id for one in found] == ["topic-missing", "stream-down"]
