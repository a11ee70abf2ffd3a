"""RecentKeys against a dictionary: it may be asked anything in any order, and forgets only what it was told to."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.silver.recent_keys import RecentKeys

settings.register_profile("no-clock", deadline=None, derandomize=True)  # a busy machine is no failure
settings.load_profile("no-clock")

_SECOND = 1_000_000
_KEYS = st.sampled_from([-(2**63), -5, 0, 1, 2, 3, 2**63 - 1])
_BATCHES = st.lists(st.lists(st.tuples(_KEYS, st.integers(-5, 20)), max_size=12), max_size=8)
"""Batches of (key, Kafka second)."""


def _longs(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def _add(recent: RecentKeys, batch: list[tuple[int, int]]) -> None:
    recent.add(_longs([key for key, _ in batch]), _longs([second * _SECOND + 999_999 for _, second in batch]))


def _check(recent: RecentKeys, model: list[tuple[int, int]], wanted: list[int]) -> None:
    known, found = recent.find(_longs(wanted))
    seconds = [second for key, second in model if key in wanted]

    assert known.tolist() == [any(key == other for other, _ in model) for key in wanted]
    assert found.tolist() == sorted(set(seconds))
    assert len(recent) == len(model)


@given(_BATCHES, st.lists(_KEYS, max_size=10))
def test_find_knows_what_was_added_and_when(batches: list[list[tuple[int, int]]], wanted: list[int]) -> None:
    recent, model = RecentKeys(-10 * _SECOND), list[tuple[int, int]]()
    for batch in batches:
        _add(recent, batch)
        model += batch
        _check(recent, model, wanted)


@given(_BATCHES, st.integers(-6, 22), _BATCHES, st.lists(_KEYS, max_size=10))
def test_forget_before_drops_older_rows_only(
    batches: list[list[tuple[int, int]]], horizon: int, later: list[list[tuple[int, int]]], wanted: list[int]
) -> None:
    recent, model = RecentKeys(-10 * _SECOND), [row for batch in batches for row in batch]
    for batch in batches:
        _add(recent, batch)
    recent.forget_before(horizon * _SECOND)
    model = [row for row in model if row[1] >= horizon]
    _check(recent, model, wanted)
    for batch in later:
        _add(recent, batch)
        model += batch

    _check(recent, model, wanted)
    assert recent.horizon_us == horizon * _SECOND


def test_horizon_never_moves_back() -> None:
    recent = RecentKeys(5 * _SECOND)
    recent.forget_before(0)

    assert recent.horizon_us == 5 * _SECOND


def test_many_small_batches_stay_few_runs() -> None:
    recent = RecentKeys(0)
    for number in range(300):
        _add(recent, [(number, number), (-number - 1, number)])

    assert len(recent) == 600
    assert len(recent._runs) < 10  # a search looks into each run
    _check(recent, [(n, n) for n in range(300)] + [(-n - 1, n) for n in range(300)], [299, 300, -300, -301])
