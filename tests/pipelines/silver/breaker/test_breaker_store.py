"""The breaker's table: what is written is read back, the newest first, and a broken table never stops the data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.lake.errors import DamagedError
from pipelines.lake.settings_sources import load_settings
from pipelines.silver.breaker.breaker import State, Tally
from pipelines.silver.breaker.breaker_store import UNREADABLE, BreakerStore, Transition

T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> BreakerStore:
    return BreakerStore(load_settings(None, environ={}, overrides={"lake.root": str(tmp_path / "my lake")}))


def change(minutes: int, to: State = "open") -> Transition:
    return Transition(T0 + timedelta(minutes=minutes), "closed", to, Tally(10, 9), f"reason {minutes}")


def test_lake_without_history_has_none(store: BreakerStore) -> None:
    assert store.last() is None
    assert store.newest(5) == []
    assert not Path(store.path).exists()


def test_transition_is_read_back_as_it_was_written(store: BreakerStore) -> None:
    written = Transition(
        T0, "half_open", "closed", Tally(1000, 600), "fine", "gen", 7, {"0": [5, 9], "11": [0, 3]}, {0: 9, 11: 3}
    )
    store.append(written)
    assert store.last() == written
    assert written.held_ends() == {0: 9, 11: 3}
    reset = Transition(T0 + timedelta(seconds=1), "open", "closed", Tally(), "reset: because")
    store.append(reset)
    assert store.last() == reset


def test_newest_comes_first_whatever_order_the_rows_were_written_in(store: BreakerStore) -> None:
    for minutes in (3, 1, 5, 2, 4):
        store.append(change(minutes))
    assert [found.reason for found in store.newest(3)] == ["reason 5", "reason 4", "reason 3"]
    assert DeltaTable(store.path).version() == 4


def test_table_that_cannot_be_written_is_said_and_not_raised(store: BreakerStore) -> None:
    Path(store.path).parent.mkdir(parents=True)
    Path(store.path).write_text("no folder")
    assert store.record(change(1)) is False


def test_table_that_cannot_be_read_counts_as_none(store: BreakerStore) -> None:
    store.append(change(1))
    (Path(store.path) / "_delta_log" / f"{0:020}.json").write_text("no json\n")
    assert store.peek() is None
    with pytest.raises(DamagedError):
        store.last()


def test_file_that_is_cut_counts_as_none(store: BreakerStore) -> None:
    store.append(change(1))
    [path] = Path(store.path).glob("*.parquet")
    path.write_bytes(path.read_bytes()[:20])
    assert store.peek() is None
    assert store.peek_newest(20) == []
    with pytest.raises(UNREADABLE):
        store.last()
