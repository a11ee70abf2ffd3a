"""A figure is compared with the last closed days: 1 within their range, else how far outside."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.gold.gate.history import multiple, usual_of_day

WEDNESDAY = date(2026, 1, 28)
WEEK = {WEDNESDAY - timedelta(days=back): figure for back, figure in enumerate((95, 100, 40, 50, 105, 100, 110), start=1)}
"""Tuesday 95, Monday 100, Sunday 40, Saturday 50, Friday 105, Thursday 100, Wednesday 110."""


def test_a_full_week_of_history_gives_the_range_from_the_median_to_the_same_weekday() -> None:
    assert usual_of_day(WEDNESDAY, WEEK) == (100, 110)
    sunday = {WEDNESDAY + timedelta(days=4) - timedelta(days=back): figure for back, figure in enumerate((50,) * 6 + (40,), 1)}
    assert usual_of_day(WEDNESDAY + timedelta(days=4), sunday) == (40, 50)


def test_without_that_weekday_the_whole_range_is_usual() -> None:
    past = {day: figure for day, figure in WEEK.items() if day.weekday() != WEDNESDAY.weekday()}
    assert usual_of_day(WEDNESDAY, past) == (40, 105)
    assert usual_of_day(WEDNESDAY, {}) is None


@pytest.mark.parametrize(
    ("figure", "usual", "expected"),
    [
        (50, (100, 110), 0.5),
        (105, (100, 110), 1.0),
        (220, (100, 110), 2.0),
        (0, (100, 110), 0.0),
        (5, (0, 10), 1.0),
        (20, (0, 10), 2.0),
    ],
)
def test_multiple_of_the_nearer_end(figure: float, usual: tuple[float, float], expected: float) -> None:
    assert multiple(figure, usual) == expected


def test_nothing_to_compare_with_is_not_judged() -> None:
    assert multiple(5, None) is None
    assert multiple(5, (0, 0)) is None


@given(st.dictionaries(st.dates(date(2026, 1, 1), date(2026, 1, 27)), st.floats(1, 1e9), min_size=1, max_size=7))
def test_a_day_like_any_of_its_past_is_never_further_off_than_the_past_itself(past: dict[date, float]) -> None:
    usual = usual_of_day(WEDNESDAY, past)
    assert usual is not None
    low, high = usual
    assert min(past.values()) <= low <= high <= max(past.values())
    assert multiple(low, usual) == multiple(high, usual) == 1.0
    assert multiple(low / 2, usual) == pytest.approx(0.5)
    assert multiple(high * 2, usual) == pytest.approx(2.0)
