"""`lakehouse breaker` shows what is held and lets it pass on an operator's word, without a JVM."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lakehouse.commands.cli import main
from lakehouse.operations.status.reading import read_status
from pipelines.lake.tables import LEDGER
from pipelines.silver.breaker.breaker import Tally
from pipelines.silver.breaker.breaker_store import BreakerStore, Transition
from tests.lakehouse.conftest import T0, Answers, batch

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def config(hand_lake: Any) -> str:
    """Settings of a lake of which Silver has read 4 of 10 records."""
    hand_lake.rows[LEDGER] = [row for row in hand_lake.rows[LEDGER] if (row["job"], row["batch_id"]) != ("silver", 1)]
    hand_lake.rows[LEDGER].append(batch("bronze", 2, {"0": [6, 7]}, rows_read=1, inserted=1))
    hand_lake.write()
    path: Path = hand_lake.folder / "conf.yaml"
    path.write_text(json.dumps({"lake": {"root": hand_lake.settings.lake.root, "state_dir": str(hand_lake.folder)}}))
    return str(path)


@pytest.fixture
def store(hand_lake: Any) -> BreakerStore:
    return BreakerStore(hand_lake.settings)


def opened(store: BreakerStore) -> None:
    store.append(Transition(T0, "closed", "open", Tally(1200, 900), "too many dead letters", "g1", 1, {"0": [2, 6], "1": [2, 4]}))


def run(*args: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["breaker", *args])
    return ended.value.code


def test_lake_without_history_shows_closed_and_nothing_to_reset(config: str, store: BreakerStore, capsys: Capture) -> None:
    assert run("show", "--config", config) == 0
    assert "closed" in capsys.readouterr().out
    assert run("reset", "--reason", "x", "--config", config) == 2
    assert "is closed, so there is nothing to reset" in capsys.readouterr().err
    assert not Path(store.path).exists()


def test_open_breaker_shows_what_waits_and_when_it_is_tried_again(config: str, store: BreakerStore, capsys: Capture) -> None:
    opened(store)
    assert run("show", "--config", config) == 0
    shown = capsys.readouterr().out
    assert "open" in shown
    assert "900 of 1,200 dead" in shown
    assert "7 records of Bronze that Silver has not read" in shown  # 2 to 7 and 2 to 4
    assert run("show", "--json", "--config", config) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["waiting"], found["changes"][0]["batch"]) == ("open", 7, 1)
    assert found["retry_at"] == str(T0 + timedelta(seconds=60))


def test_reset_accepts_what_bronze_holds_and_is_recorded(config: str, store: BreakerStore, capsys: Capture) -> None:
    opened(store)
    assert run("reset", "--reason", "old client, ticket 7", "--dry-run", "--config", config) == 0
    assert "Would accept 7 records" in capsys.readouterr().out
    assert len(store.newest(9)) == 1
    assert run("reset", "--reason", "old client, ticket 7", "--config", config) == 0
    assert capsys.readouterr().out.startswith("Accepts 7 records")
    last = store.last()
    assert last is not None
    assert (last.from_state, last.to_state, last.accepted) == ("open", "closed", {0: 7, 1: 4})
    assert last.reason == "reset: old client, ticket 7"
    assert run("reset", "--reason", "again", "--config", config) == 2


def test_reset_wants_a_reason(config: str, store: BreakerStore, capsys: Capture) -> None:
    opened(store)
    assert run("reset", "--reason", "  ", "--config", config) == 2
    assert run("reset", "--config", config) == 2
    capsys.readouterr()
    assert len(store.newest(9)) == 1


def test_status_shows_the_breaker(config: str, hand_lake: Any, store: BreakerStore, capsys: Capture) -> None:
    assert read_status(hand_lake.settings).breaker is None
    opened(store)
    found = read_status(hand_lake.settings).breaker
    assert found is not None
    assert (found.state, found.since, found.share, found.records) == ("open", T0, 0.75, 1200)
    with pytest.raises(SystemExit):
        main(["status", "--config", config])
    assert "Circuit breaker of Silver: open since" in capsys.readouterr().out


def test_show_answers_within_two_seconds_after_a_day_of_probes(config: str, store: BreakerStore, answers: Answers) -> None:
    for minutes in range(60):
        store.append(Transition(T0 + timedelta(minutes=minutes), "half_open", "open", Tally(9, 9), "too many"))

    def look(done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, done.stderr
        assert "open" in done.stdout

    # Alone it is under 2; another test runs beside it.
    answers(5, "breaker", "show", "--config", config, look=look)
