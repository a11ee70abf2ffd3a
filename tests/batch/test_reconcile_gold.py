"""The daily batch on real tables: what differed and why, the repair, and the day that is closed once and for all."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batch import reconcile_gold
from batch.reconcile_gold import EXIT_WAS_OFF, Outcome, reconcile
from pipelines.lake.errors import EXIT_USAGE

if TYPE_CHECKING:
    from tests.batch.conftest import Books

Row = dict[str, Any]
NOON = datetime(2026, 1, 28, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
AFTER_GRACE = datetime(2026, 1, 29, 2, tzinfo=UTC)
BEFORE_GRACE = AFTER_GRACE - timedelta(microseconds=1)


def _found(books: Books, run_id: str) -> Counter[tuple[str, str]]:
    rows = books.rows(books.paths.reconciliation)
    return Counter((row["grain"], row["cause"]) for row in rows if row["run_id"] == run_id and row["grain"] != "day")


def _bill(books: Books) -> dict[str, tuple[int, str]]:
    return {row["customer_id"]: (row["event_count"], row["billing_status"]) for row in books.rows(books.paths.daily)}


def test_right_day_is_closed_after_grace_and_not_before(books: Books) -> None:
    books.add({"event_id": "e1"}, {"event_id": "e2", "at": 23.9999})
    books.aggregate()
    open_run = books.reconcile(BEFORE_GRACE)

    assert (open_run.status, open_run.events_off, open_run.differences) == ("provisional", 0, {})
    assert _bill(books) == {"c1": (2, "provisional")}
    closing = books.reconcile(AFTER_GRACE)
    assert (closing.status, closing.was_final, closing.events_before, closing.events_after) == ("final", False, 2, 2)
    assert _bill(books) == {"c1": (2, "final")}
    runs = [row for row in books.rows(books.paths.reconciliation) if row["grain"] == "day"]
    assert {row["cause"] for row in runs} == {"none"}
    assert sorted(row["billing_status"] for row in runs) == ["final", "provisional"]


def test_each_difference_has_its_cause_and_is_repaired(books: Books) -> None:
    books.add(
        {"event_id": "a"},
        {"event_id": "b", "endpoint": "/wrong"},
        {"event_id": "d", "endpoint": "/behind"},
        {"event_id": "f", "endpoint": "/fine"},
        {"event_id": "t", "endpoint": "/twice"},
    )
    books.aggregate()
    books.add({"event_id": "a2", "_is_late_arriving": True}, {"event_id": "d2", "endpoint": "/behind"}, processed_at=LATER)
    books.execute("UPDATE {hourly} SET event_count = 7, request_bytes = 1 WHERE endpoint = '/wrong'")
    books.execute("UPDATE {hourly} SET endpoint = '/extra' WHERE endpoint = '/fine'")
    books.execute("INSERT INTO {hourly} SELECT * FROM {hourly} WHERE endpoint = '/twice'")
    outcome = books.reconcile(BEFORE_GRACE)
    rows = [row for row in books.rows(books.paths.reconciliation) if row["grain"] == "hourly"]
    causes = {(json.loads(row["key"])["endpoint"], row["cause"]) for row in rows}

    assert causes == {
        ("/a", "late_events"),
        ("/behind", "not_yet_aggregated"),
        ("/wrong", "wrong_in_gold"),
        ("/extra", "extra_in_gold"),
        ("/fine", "not_yet_aggregated"),
        ("/twice", "wrong_in_gold"),
    }
    assert outcome.events_off == 1 + 1 + 6 + 1 + 1 + 1
    by_measure = {row["measure"]: (row["before"], row["after"]) for row in rows if json.loads(row["key"])["endpoint"] == "/wrong"}
    assert by_measure == {"event_count": (7, 1), "request_bytes": (1, 100)}
    assert _bill(books) == {"c1": (7, "provisional")}
    second = books.reconcile(BEFORE_GRACE)
    assert (second.events_off, second.differences, _found(books, second.run_id)) == (0, {}, Counter())


def test_gold_that_was_never_aggregated_is_made(books: Books) -> None:
    books.add({"event_id": "e1"}, {"event_id": "e2", "_is_late_arriving": True, "customer_id": "c2"})
    outcome = books.reconcile(AFTER_GRACE)

    assert {cause for _, cause in outcome.differences} == {"not_yet_aggregated", "late_events"}
    assert (outcome.events_before, outcome.events_after, outcome.events_off) == (0, 2, 2)
    assert _bill(books) == {"c1": (1, "final"), "c2": (1, "final")}


def test_other_days_are_left_alone(books: Books) -> None:
    books.add({"event_id": "before", "at": -0.001}, {"event_id": "after", "at": 24}, {"event_id": "e1", "at": 0})
    books.aggregate()
    books.execute("UPDATE {hourly} SET event_count = 99 WHERE hour < '2026-01-28' OR hour >= '2026-01-29'")
    outcome = books.reconcile(AFTER_GRACE)

    assert (outcome.events_before, outcome.events_after, outcome.differences) == (1, 1, {})
    assert sorted(row["event_count"] for row in books.rows(books.paths.hourly)) == [1, 99, 99]


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
        assert dry == replace(done, run_id=dry.run_id, dry_run=True)
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
