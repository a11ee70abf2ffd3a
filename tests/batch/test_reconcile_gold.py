"""The script of the daily batch: what it prints, its exit codes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch import reconcile_gold
from batch.reconcile_gold import EXIT_WAS_OFF
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.errors import EXIT_USAGE

if TYPE_CHECKING:
    from tests.books import Books

LATER = datetime(2026, 1, 28, 13, tzinfo=UTC)
AFTER_GRACE = datetime(2026, 1, 29, 2, tzinfo=UTC)


def test_day_without_events_is_not_closed(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = books.reconcile(AFTER_GRACE)

    assert (outcome.events_before, outcome.events_after, outcome.differences) == (0, 0, {})
    assert outcome.status == "provisional"
    assert str(outcome).endswith("the day has no event in Silver, so there is no bill and nothing is closed.")
    reconcile_gold.print_outcome(outcome)
    said = capsys.readouterr().out
    assert "not closed: the day has no event" in said
    assert "final" not in said
    assert {row["billing_status"] for row in books.rows(books.paths.reconciliation)} == {"provisional"}


def _main(books: Books, tmp_path: Path, *flags: str) -> int:
    config = tmp_path / "conf.yaml"
    config.write_text(json.dumps({"lake": {"root": books.settings.lake.root}}), encoding="utf-8")
    return reconcile_gold.main(["--config", str(config), *flags])


def test_command_prints_a_table_and_exits_3_where_gold_was_off(
    books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books.add({"event_id": "e1"})

    assert _main(books, tmp_path, "--date", "2026-01-28") == EXIT_WAS_OFF == 3
    printed = capsys.readouterr().out
    assert "Reconciliation of 2026-01-28" in printed
    assert "events that Gold was off by" in printed
    assert _main(books, tmp_path, "--date", "2026-01-28") == 0


@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.faults)], ids=["open", "then closed"])
def test_dry_run_says_what_a_run_does_and_writes_nothing(
    rounds: int, books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books.add({"event_id": "e1"})
    lake = Path(books.settings.lake.root)
    told: list[tuple[str, list[Path]]] = []

    def tell(found: Outcome) -> None:
        told.append((str(found), sorted(lake.rglob("*.parquet"))))

    for hours in range(rounds):
        # An open day that lacks events, then a closed one that got one more.
        books.add({"event_id": f"late{hours}", "endpoint": f"/late{hours}"}, processed_at=LATER + timedelta(hours=hours))
        before = sorted(lake.rglob("*"))
        dry = books.reconcile(AFTER_GRACE, dry_run=True)
        assert _main(books, tmp_path, "--date", "2026-01-28", "--dry-run") == EXIT_WAS_OFF
        said = capsys.readouterr().out
        assert "dry run, nothing is written" in " ".join(said.split())
        assert sorted(lake.rglob("*")) == before
        told.clear()
        done = reconcile(books.spark, books.settings, books.paths, date(2026, 1, 28), AFTER_GRACE, say=tell)
        # The same words, and nothing was written yet but tables that were not there.
        assert told == [(said.splitlines()[0], [path for path in before if path.suffix == ".parquet"])]
        assert dry == replace(done, run_id=dry.run_id, dry_run=True, audit=None)
        assert (done.was_final, done.adjusted) == (bool(hours), hours)


def test_path_that_is_no_table_is_one_sentence_and_writes_nothing(
    books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    before = sorted((tmp_path / "lake").rglob("*"))

    for flags in (("--silver-path", str(nowhere)), ("--gold-path", str(nowhere))):
        assert _main(books, tmp_path, "--date", "2026-01-28", *flags) == EXIT_USAGE
        error = capsys.readouterr().err
        assert error.startswith("error: No Delta table lies at")
        assert error.count("\n") == 1
    assert sorted((tmp_path / "lake").rglob("*")) == before
    assert not nowhere.exists()


def test_bad_date_ends_the_command_before_spark_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "conf.yaml"
    config.write_text("", encoding="utf-8")

    for day in ("2026-02-30", "9999-12-31"):
        assert reconcile_gold.main(["--config", str(config), "--date", day]) == EXIT_USAGE
        assert capsys.readouterr().err.count("\n") == 1
