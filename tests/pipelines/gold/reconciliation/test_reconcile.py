"""A day that is reconciled on real tables: what differed and why, the repair, and the day that is closed once and for all."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.books import Books

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
    versions = {(row["gold_version_before"], row["gold_version_after"]) for row in books.rows(books.paths.reconciliation)}
    assert versions == {(0, None), (0, 1)}
    assert _bill(books) == {"c1": (1, "final"), "c2": (1, "final")}


def test_other_days_are_left_alone(books: Books) -> None:
    books.add({"event_id": "before", "at": -0.001}, {"event_id": "after", "at": 24}, {"event_id": "e1", "at": 0})
    books.aggregate()
    books.execute("UPDATE {hourly} SET event_count = 99 WHERE hour < '2026-01-28' OR hour >= '2026-01-29'")
    outcome = books.reconcile(AFTER_GRACE)

    assert (outcome.events_before, outcome.events_after, outcome.differences) == (1, 1, {})
    assert sorted(row["event_count"] for row in books.rows(books.paths.hourly)) == [1, 99, 99]
