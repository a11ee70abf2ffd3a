"""The circuit breaker as a state machine: every state with every kind of batch, and what holds for any history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipelines.lake.settings import BreakerSettings
from pipelines.silver.breaker.breaker import NOTHING, Breaker, Limits, Sample, State, Tally, merge_ends

T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
LIMITS = Limits(share=0.5, min_records=100, window=timedelta(minutes=5), cool_down=timedelta(minutes=1))
GOOD, BAD, FEW_BAD, EDGE, EMPTY = Tally(200, 99), Tally(200, 101), Tally(99, 99), Tally(200, 100), NOTHING


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("state", "batch", "landed", "expected"),
    [
        ("closed", GOOD, NOTHING, "closed"),
        ("closed", BAD, NOTHING, "open"),
        ("closed", EDGE, NOTHING, "open"),
        ("closed", FEW_BAD, NOTHING, "closed"),
        ("closed", EMPTY, NOTHING, "closed"),
        ("closed", BAD, GOOD, "open"),
        ("open", GOOD, NOTHING, "open"),
        ("open", BAD, NOTHING, "open"),
        ("open", EMPTY, GOOD, "open"),
        ("half_open", GOOD, NOTHING, "closed"),
        ("half_open", EMPTY, NOTHING, "closed"),
        ("half_open", BAD, NOTHING, "open"),
        ("half_open", EDGE, NOTHING, "open"),
        ("half_open", FEW_BAD, NOTHING, "open"),
        ("half_open", BAD, BAD, "open"),
        ("half_open", BAD, EDGE, "open"),
        ("half_open", BAD, GOOD, "closed"),
        ("half_open", FEW_BAD, Tally(1, 0), "closed"),
    ],
)
def test_each_state_with_each_batch(state: State, batch: Tally, landed: Tally, expected: State) -> None:
    before = Breaker(state, T0)
    result = before.judge(LIMITS, batch, after(10), landed=landed)

    assert result.state == expected
    assert result.since == (T0 if expected == state else after(10))


def test_exactly_the_least_number_of_records_opens_it_and_one_less_does_not() -> None:
    assert Breaker("closed", T0).judge(LIMITS, Tally(100, 50), T0).state == "open"
    assert Breaker("closed", T0).judge(LIMITS, Tally(99, 99), T0).state == "closed"


def test_small_bad_batches_add_up_within_the_window_only() -> None:
    breaker = Breaker("closed", T0).counted(LIMITS, Sample("a", T0, Tally(60, 60)))

    assert breaker.judge(LIMITS, Tally(60, 60), after(299)).state == "open"
    assert breaker.judge(LIMITS, Tally(60, 60), after(300)).state == "closed"


def test_batch_below_the_limit_never_opens_it_whatever_is_left_in_the_window() -> None:
    breaker = Breaker("closed", T0, samples=(Sample("a", T0, Tally(900, 0)), Sample("b", after(250), Tally(400, 400))))

    assert breaker.judge(LIMITS, Tally(200, 99), after(310)).state == "closed"
    assert breaker.window(LIMITS, after(310)) == Tally(400, 400)


def test_batch_that_runs_again_is_counted_once() -> None:
    breaker = Breaker("closed", T0)
    for seconds in (0, 5):
        breaker = breaker.counted(LIMITS, Sample("a", after(seconds), Tally(10, 1)))

    assert breaker.window(LIMITS, after(6)) == Tally(10, 1)


@pytest.mark.parametrize(("seconds", "expected"), [(0, "open"), (59.999, "open"), (60, "half_open"), (600, "half_open")])
def test_open_becomes_half_open_when_the_cool_down_is_over(seconds: float, expected: State) -> None:
    assert Breaker("open", T0).resume(LIMITS, after(seconds)).state == expected


@pytest.mark.parametrize("state", ["closed", "half_open"])
def test_only_an_open_breaker_resumes(state: State) -> None:
    assert Breaker(state, T0).resume(LIMITS, after(1000)) == Breaker(state, T0)


def test_failed_probe_begins_the_cool_down_anew() -> None:
    probe = Breaker("open", T0).resume(LIMITS, after(60))
    again = probe.judge(LIMITS, BAD, after(70))

    assert again.retry_at(LIMITS) == after(130)


def test_closing_forgets_the_window_and_keeps_what_was_accepted() -> None:
    breaker = Breaker("half_open", T0, {0: 5, 1: 9}, (Sample("a", T0, BAD),))
    closed = breaker.closed(after(1), {0: 7, 1: 2, 2: 1})

    assert (closed.state, closed.accepted, closed.samples) == ("closed", {0: 7, 1: 9, 2: 1}, ())


def test_limits_are_those_of_the_settings() -> None:
    found = Limits.of(BreakerSettings(share=0.2, min_records=7, window_seconds=30, cool_down_seconds=1.5))

    assert found == Limits(0.2, 7, timedelta(seconds=30), timedelta(seconds=1.5))


def test_ends_are_merged_by_the_further_one() -> None:
    assert merge_ends({0: 3}, {0: 2, 4: 1}) == {0: 3, 4: 1}


class BreakerLife(RuleBasedStateMachine):
    """A stream that lives through any batches, waits and resets, beside a plain account of what it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now, self.batch = Breaker("closed", T0), T0, 0
        self.written: list[Sample] = []
        self.opened_at: datetime | None = None

    @rule(seconds=st.integers(0, 400))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def reset(self) -> None:
        if self.breaker.state != "closed":
            self.breaker, self.opened_at, self.written = self.breaker.closed(self.now, {}), None, []

    @rule(records=st.integers(0, 300), dead=st.integers(0, 300), landed=st.integers(0, 300), landed_dead=st.integers(0, 300))
    def try_a_batch(self, records: int, dead: int, landed: int, landed_dead: int) -> None:
        batch, news = Tally(records, min(dead, records)), Tally(landed, min(landed_dead, landed))
        before = self.breaker.resume(LIMITS, self.now)
        assert before.state != "half_open" or self.opened_at is None or self.now >= self.opened_at + LIMITS.cool_down
        result = before.judge(LIMITS, batch, self.now, landed=news)
        total = sum((one.tally for one in self.written if one.at > self.now - LIMITS.window), batch)
        if before.state == "closed":
            flood = batch.share >= 0.5 and total.records >= 100 and total.dead_letters * 2 >= total.records
            assert (result.state == "open") == flood
        elif before.state == "half_open":
            fine = batch.share < 0.5 or (news.records > 0 and news.share < 0.5)
            assert result.state == ("closed" if fine else "open")
        else:
            assert result == before
        if result.state == "closed":
            if before.state != "closed":
                self.written = []
            sample = Sample(str(self.batch), self.now, batch)
            self.written.append(sample)
            result = result.counted(LIMITS, sample)
            self.batch, self.opened_at = self.batch + 1, None
        elif before.state != "open":
            self.opened_at = self.now
        self.breaker = result

    @invariant()
    def window_is_what_was_written(self) -> None:
        if self.breaker.state == "closed":
            recent = [one.tally for one in self.written if one.at > self.now - LIMITS.window]
            assert self.breaker.window(LIMITS, self.now) == sum(recent, NOTHING)


TestBreakerLife = BreakerLife.TestCase
TestBreakerLife.settings = hypothesis_settings(max_examples=60, stateful_step_count=25, deadline=None)
