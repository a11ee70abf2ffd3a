"""A closed day: the bill stays bit for bit, what comes later is added to it, each event once."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.gold.reconciliation.adjustments import book, build_adjustments, read_bill
from pipelines.gold.schema import TOTALS
from pipelines.gold.transforms import build_daily, build_hourly
from tests.failing import dies_at

if TYPE_CHECKING:
    from tests.books import Books

Row = dict[str, Any]
CLOSING = datetime(2026, 1, 29, 2, tzinfo=UTC)
LATER = CLOSING + timedelta(hours=1)
AFTER = datetime(2026, 2, 1, tzinfo=UTC)
"""When what comes after the closing is processed."""


def _booked(books: Books) -> list[Row]:
    return sorted(books.rows(books.paths.adjustments), key=lambda row: (row["sequence"], row["customer_id"], row["cause"]))


def _deltas(books: Books) -> list[tuple[Any, ...]]:
    names = ("sequence", "customer_id", "cause", "event_count", "response_bytes")
    return [tuple(row[name] for name in names) for row in _booked(books)]


def _owed(books: Books) -> dict[str, Counter[str]]:
    """Final rows plus adjustments, without customers who owe nothing."""
    sums: dict[str, Counter[str]] = {}
    for row in [*books.rows(books.paths.daily), *books.rows(books.paths.adjustments)]:
        found = sums.setdefault(row["customer_id"], Counter())
        for name in TOTALS:
            found[name] += row[name]
    return {customer: totals for customer, totals in sums.items() if any(totals.values())}


def _recomputed(books: Books) -> dict[str, Counter[str]]:
    sums: dict[str, Counter[str]] = {}
    for row in books.rows(books.paths.silver):
        sums.setdefault(row["customer_id"], Counter()).update(
            event_count=1,
            error_count=int(row["status_code"] >= 400),
            request_bytes=row["request_bytes"],
            response_bytes=row["response_bytes"],
            late_count=int(row["_is_late_arriving"]),
        )
    return sums


def _close(books: Books) -> list[Row]:
    books.add({"event_id": "e1"}, {"event_id": "e2", "status_code": 500, "customer_id": "c2"})
    books.aggregate()
    books.reconcile(CLOSING)
    rows = books.rows(books.paths.daily)
    assert {row["billing_status"] for row in rows} == {"final"}
    return rows


def test_events_after_the_closing_are_added_with_their_cause_and_once(books: Books) -> None:
    bill = _close(books)
    assert _booked(books) == []
    books.add(
        {"event_id": "l1", "_is_late_arriving": True, "response_bytes": 5},
        {"event_id": "l2", "_is_late_arriving": True, "customer_id": "new"},
        {"event_id": "r1", "response_bytes": 7},
        processed_at=AFTER,
    )
    outcome = books.reconcile(LATER)

    assert (outcome.was_final, outcome.adjusted) == (True, 3)
    assert books.rows(books.paths.daily) == bill
    assert _deltas(books) == [(1, "c1", "late", 1, 5), (1, "c1", "replayed", 1, 7), (1, "new", "late", 1, 1000)]
    assert {(row["silver_version_from"], row["silver_version_to"], row["run_id"]) for row in _booked(books)} == {
        (1, 2, outcome.run_id)
    }
    assert _owed(books) == _recomputed(books)
    assert sum(row["event_count"] for row in books.rows(books.paths.hourly)) == 5
    booked = _booked(books)
    again = books.reconcile(LATER + timedelta(hours=1))
    assert (again.adjusted, again.differences, again.events_off) == (0, {}, 0)
    assert _booked(books) == booked


def test_changed_and_removed_rows_are_corrections(books: Books) -> None:
    bill = _close(books)
    books.execute("UPDATE {silver} SET response_bytes = 900 WHERE event_id = 'e1'")
    books.execute("DELETE FROM {silver} WHERE event_id = 'e2'")
    books.reconcile(LATER)

    assert books.rows(books.paths.daily) == bill
    assert _deltas(books) == [(1, "c1", "corrected", 0, -100), (1, "c2", "corrected", -1, -1000)]
    assert _owed(books) == _recomputed(books)


@pytest.mark.faults
@pytest.mark.parametrize("point", ["after_evidence", "after_hourly", "after_adjustments"])
def test_run_that_died_is_completed_by_the_next(books: Books, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    bill = _close(books)
    books.add({"event_id": "l1", "_is_late_arriving": True}, processed_at=AFTER)

    with dies_at(monkeypatch, f"reconcile.{point}"), pytest.raises(InterruptedError):
        books.reconcile(LATER)
    second = books.reconcile(LATER)

    assert second.adjusted == (0 if point == "after_adjustments" else 1)
    assert _deltas(books) == [(1, "c1", "late", 1, 1000)]
    assert books.rows(books.paths.daily) == bill
    assert _owed(books) == _recomputed(books)


@pytest.mark.faults
def test_two_runs_that_saw_the_same_bill_book_it_once(books: Books) -> None:
    _close(books)
    books.add({"event_id": "l1", "_is_late_arriving": True}, processed_at=AFTER)
    silver, daily = (books.spark.read.format("delta").load(path) for path in (books.paths.silver, books.paths.daily))
    bill = read_bill(books.spark, daily, books.paths.adjustments, books.paths.silver, date(2026, 1, 28))
    added = []
    for run in ("first", "second"):
        rows = build_adjustments(silver, build_daily(build_hourly(silver)), bill.rows)
        added.append(book(books.spark, books.paths.adjustments, rows, bill, silver_version=2, run_id=run, now=LATER))

    assert added == [1, 0]
    assert [row["run_id"] for row in _booked(books)] == ["first"]


@pytest.mark.faults
def test_any_sequence_of_changes_and_runs_keeps_bill_plus_adjustments_equal_to_silver(books: Books) -> None:
    bill = _close(books)
    draw = random.Random(20260128)
    for number in range(5):
        for step in range(draw.randint(0, 2)):
            name, customer = f"x{number}-{step}", draw.choice(["c1", "c2", "c3"])
            late = draw.random() < 0.7
            event = {"event_id": name, "customer_id": customer, "_is_late_arriving": late, "at": draw.uniform(0, 23.9)}
            books.add({**event, "status_code": draw.choice([200, 503])}, processed_at=AFTER + timedelta(hours=number))
        if draw.random() < 0.4:
            books.execute("UPDATE {silver} SET request_bytes = request_bytes + 1 WHERE customer_id = 'c1'")
        if draw.random() < 0.3:
            books.execute("DELETE FROM {silver} WHERE event_id LIKE 'x0%'")
        books.reconcile(AFTER + timedelta(hours=number, minutes=30))

        assert books.rows(books.paths.daily) == bill, number
        assert _owed(books) == _recomputed(books), number
