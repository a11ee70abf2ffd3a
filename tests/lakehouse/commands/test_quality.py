"""`lakehouse quality` shows what audits found without a JVM, and audits a day without publishing it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from lakehouse.commands.cli import main
from pipelines.gold.gate.results import Gate, Override, QualityStore
from pipelines.lake.errors import EXIT_REFUSED, EXIT_USAGE
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import ADJUSTMENTS, CANDIDATES, GOLD_DAILY, GOLD_HOURLY, RECONCILIATION
from tests.audits import BLOCKS, DAY, HOLDS, UNKNOWN, WARNS, audit, result
from tests.books import books

if TYPE_CHECKING:
    from tests.books import Books

__all__ = ["books"]

Capture = pytest.CaptureFixture[str]
WITHOUT_SPARK = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyspark", "py4j", "delta", "great_expectations"):
            raise AssertionError(f"{name} is imported")
sys.meta_path.insert(0, Refuse())
from lakehouse.commands.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that folds no cell."""
    monkeypatch.setenv("COLUMNS", "200")


def configured(folder: Path) -> Path:
    path = folder / "conf.yaml"
    path.write_text(json.dumps({"lake": {"root": str(folder / "lake"), "state_dir": str(folder)}}))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return configured(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> QualityStore:
    return QualityStore(load_settings(None, environ={}, overrides={"lake.root": str(tmp_path / "lake")}))


def run(*args: str, config: Path) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["quality", *args, "--config", str(config)])
    return ended.value.code


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ ").split("│")]


def test_audit_of_a_day_is_shown_in_full_with_what_blocks_first(config: Path, store: QualityStore, capsys: Capture) -> None:
    store.record(audit(Gate.REFUSED, BLOCKS))
    odd = result("odd", observed="3 of 9 are [otherwise]")
    store.record(audit(Gate.REFUSED, HOLDS, odd, WARNS, UNKNOWN, BLOCKS, hours=1))

    assert run("show", "--date", "2026-01-28", config=config) == 0

    said = capsys.readouterr().out
    assert "Audit of 2026-01-28, refused: 3 of 5 expectations fail, 2 block" in said
    assert "run-0128-1, 2026-01-29 03:00:00 UTC; Silver version 12, candidate version 3" in said
    assert "docs/2026-01-28/index.html" in said
    rows = [cells(line) for line in said.splitlines() if line.startswith("│")]
    assert [row[:3] for row in rows] == [
        ["rows-as-in-ledger", "blocks", "not evaluated"],
        ["volume-usual", "blocks", "no"],
        ["late-share", "warns", "no"],
        ["all-read", "blocks", "yes"],
        ["odd", "blocks", "yes"],
    ]
    assert rows[4][3:] == ["3 of 9 are [otherwise]", "at most 0"]
    assert "volume-usual: What volume-usual is for. See playbooks/stale-data.md." in said
    assert "before: 2026-01-29 02:00:00 UTC, run run-0128-0, refused: 1 of 1 expectations fail, 1 block" in said
    assert "2026-01-28 waits at the gate since run run-0128-1 (playbooks/quality-gate.md)." in said


def test_override_is_shown_with_who_and_why(config: Path, store: QualityStore, capsys: Capture) -> None:
    store.record(audit(Gate.OVERRIDDEN, BLOCKS, override=Override("ann", "a [public] holiday")))
    assert run("show", "--date", "2026-01-28", config=config) == 0
    said = capsys.readouterr().out
    assert "by ann: a [public] holiday" in said
    assert "waits" not in said


def test_last_days_are_a_line_each_with_those_that_wait_and_the_newest_failures(
    config: Path, store: QualityStore, capsys: Capture
) -> None:
    store.record(audit(Gate.REFUSED, BLOCKS, day=DAY - timedelta(days=1)))
    store.record(audit(Gate.PASSED, HOLDS, WARNS))

    assert run("show", config=config) == 0

    said = capsys.readouterr().out
    rows = [cells(line) for line in said.splitlines() if line.startswith("│")]
    assert rows == [
        ["2026-01-28", "", "passed", "1", "0", "2", "01-29 02:00:00", "run-0128-0"],
        ["2026-01-27", "waits", "refused", "1", "1", "1", "01-28 02:00:00", "run-0127-0"],
        ["late-share", "warns", "no", "7", "at most 0"],
    ]
    assert "Waiting at the gate: 2026-01-27; see" in said
    assert run("show", "--json", config=config) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["day"] for one in found["audits"]] == ["2026-01-28", "2026-01-27"]
    assert found["waiting"] == ["2026-01-27"]


def test_day_without_audit_is_one_sentence_that_says_what_makes_one(config: Path, store: QualityStore, capsys: Capture) -> None:
    store.record(audit(Gate.PASSED))
    assert run("show", "--date", "2026-02-01", config=config) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("No audit of 2026-02-01 is recorded at ")
    assert "`python batch/reconcile_gold.py --date 2026-02-01`" in line
    assert "`lakehouse quality run --date 2026-02-01`" in line
    assert run("show", "--date", "2026-02-01", "--json", config=config) == 0
    assert json.loads(capsys.readouterr().out) == {"audits": [], "waiting": []}


@pytest.mark.parametrize("words", ["show --date 2026-02-30", "run --date tomorrow", "run --date 9999-12-31"])
def test_day_that_is_none_is_refused_before_anything_starts(words: str, config: Path, capsys: Capture) -> None:
    assert run(*words.split(), config=config) == EXIT_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lakehouse: --date is ")


def test_lake_that_is_not_there_is_one_sentence(config: Path, capsys: Capture) -> None:
    assert run("show", config=config) == EXIT_USAGE
    assert capsys.readouterr().err.startswith("lakehouse: There is no lake at ")
    assert run("run", "--date", "2026-01-28", config=config) == EXIT_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lakehouse: There is no Delta table at ")


def test_table_that_is_damaged_is_one_sentence(config: Path, store: QualityStore, capsys: Capture) -> None:
    store.record(audit(Gate.PASSED))
    log = Path(store.path) / "_delta_log" / f"{0:020}.json"
    log.write_text(log.read_text()[:40])
    assert run("show", config=config) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"The log of the table {store.path} is damaged" in line


@pytest.mark.parametrize("words", [(), ("--date", "2026-01-28"), ("--json",)])
def test_show_needs_neither_spark_nor_great_expectations(words: tuple[str, ...], config: Path, store: QualityStore) -> None:
    store.record(audit(Gate.REFUSED, BLOCKS))
    command = [sys.executable, "-c", WITHOUT_SPARK, "quality", "show", *words, "--config", str(config)]
    done = subprocess.run(command, cwd=PROJECT, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "volume-usual" in done.stdout


EXPECTED: dict[str, Any] = {"type": "expect_column_values_to_be_between", "severity": "blocks", "playbook": "stale-data"}


@pytest.mark.parametrize("least", [3, pytest.param(2, marks=pytest.mark.faults)], ids=["refused", "let pass"])
def test_run_audits_as_the_gate_would_and_publishes_nothing(least: int, books: Books, tmp_path: Path, capsys: Capture) -> None:
    books.add({"event_id": "e1"}, {"event_id": "e2"})
    books.aggregate()
    config, suites = configured(tmp_path), tmp_path / "suites"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"quality": {"suites": str(suites)}, "log": {"level": "error"}})
    )
    one = {"id": "day-has-events", "kwargs": {"column": "events", "min_value": least}, "says": "There are events.", **EXPECTED}
    suites.mkdir()
    (suites / "day.yaml").write_text(json.dumps({"audits": "day", "expectations": [one]}))
    settings, refuses = books.settings, least > 2
    before = {table: DeltaTable(table.path(settings)).version() for table in (GOLD_HOURLY, GOLD_DAILY)}

    code = run("run", "--date", "2026-01-28", *(() if refuses else ("--json",)), config=config)

    said = capsys.readouterr().out
    assert {table: DeltaTable(table.path(settings)).version() for table in before} == before
    assert not any(Path(table.path(settings)).exists() for table in (ADJUSTMENTS, CANDIDATES, RECONCILIATION))
    (recorded,) = QualityStore(settings).audits()
    assert (recorded.gate, recorded.gold_version, len(recorded.blocking)) == (Gate.AUDITED, None, int(refuses))
    assert Path(recorded.docs or "").is_file()
    if refuses:
        assert code == EXIT_REFUSED == 5
        assert "Audit of 2026-01-28, audited: 1 of 1 expectations fail, 1 block" in said
        rows = [cells(line) for line in said.splitlines() if line.startswith("│")]
        assert [row[:4] for row in rows] == [["day-has-events", "blocks", "no", "2"]]
        assert "The gate would refuse 2026-01-28: 1 expectations that block do not hold. Nothing was published." in said
        return
    assert code == 0
    # What was found there is what `show` tells.
    assert run("show", "--date", "2026-01-28", "--json", config=config) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(said)
    assert json.loads(said)["audits"][0]["failures"] == []
