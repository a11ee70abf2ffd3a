"""RecentKeys against a dictionary: it may be asked anything in any order, and forgets only what it was told to."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.silver.dedup.recent_keys import RecentKeys, units_of

settings.register_profile("no-clock", deadline=None, derandomize=True)  # a busy machine is no failure
settings.load_profile("no-clock")

_KEYS = st.sampled_from([-(2**63), -5, 0, 1, 2, 3, 2**63 - 1])
_LONGS = st.integers(-(2**63), 2**63 - 1)
_EDGES = (-(2**63), -1, 0, 1, 1999, 2000, 2**31 * 1000, 2_208_988_800_000, 7_258_118_399_999, 2**33 * 1000, 2**63 - 1)
_TIMES = st.one_of(st.integers(-5000, 20_000), st.sampled_from(_EDGES), _LONGS)
_BATCHES = st.lists(st.lists(st.tuples(_KEYS, _TIMES), max_size=12), max_size=8)
"""Batches of (key, Kafka time in milliseconds)."""


def _longs(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def _add(recent: RecentKeys, batch: list[tuple[int, int]]) -> None:
    recent.add(_longs([key for key, _ in batch]), _longs([ms for _, ms in batch]))


def _unit(ms: int) -> int:
    return min(max(ms // 2000, 0), 2**32 - 1)


def _check(recent: RecentKeys, model: list[tuple[int, int]], wanted: list[int]) -> None:
    known, found = recent.find(_longs(wanted))
    units = [_unit(ms) for key, ms in model if key in wanted]

    assert known.tolist() == [any(key == other for other, _ in model) for key in wanted]
    assert found.tolist() == sorted(set(units))
    assert len(recent) == len(model)


@given(_BATCHES, st.lists(_KEYS, max_size=10))
def test_find_knows_what_was_added_and_when(batches: list[list[tuple[int, int]]], wanted: list[int]) -> None:
    recent, model = RecentKeys(-10_000), list[tuple[int, int]]()
    for batch in batches:
        _add(recent, batch)
        model += batch
        _check(recent, model, wanted)


@given(_BATCHES, st.integers(-6000, 22_000), _BATCHES, st.lists(_KEYS, max_size=10))
def test_forget_before_drops_older_rows_only(
    batches: list[list[tuple[int, int]]], horizon: int, later: list[list[tuple[int, int]]], wanted: list[int]
) -> None:
    recent, model = RecentKeys(-10_000), [row for batch in batches for row in batch]
    for batch in batches:
        _add(recent, batch)
    recent.forget_before(horizon)
    # What shares the horizon's unit stays: a row too many costs nothing but its place.
    model = [row for row in model if _unit(row[1]) >= _unit(horizon)]
    _check(recent, model, wanted)
    for batch in later:
        _add(recent, batch)
        model += batch

    _check(recent, model, wanted)
    assert recent.horizon_ms == max(horizon, -10_000)


def test_horizon_never_moves_back() -> None:
    recent = RecentKeys(5000)
    recent.forget_before(0)

    assert recent.horizon_ms == 5000


@given(_LONGS, _LONGS)
def test_units_never_fall_where_time_rises(one: int, other: int) -> None:
    low, high = sorted((one, other))
    units = units_of(_longs([low, high])).tolist()

    assert units[0] <= units[1]
    assert units == [_unit(low), _unit(high)]


def test_many_small_batches_stay_few_runs() -> None:
    recent = RecentKeys(0)
    for number in range(300):
        _add(recent, [(number, number), (-number - 1, number)])

    assert len(recent) == 600
    assert len(recent._runs) < 10  # a search looks into each run
    _check(recent, [(n, n) for n in range(300)] + [(-n - 1, n) for n in range(300)], [299, 300, -300, -301])
