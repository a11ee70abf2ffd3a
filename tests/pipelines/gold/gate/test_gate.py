"""The gate refuses days that are wrong, each in its own way, and billing reads what it read before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from pipelines.gold.gate.results import Gate, Override, waiting
from pipelines.lake.errors import UsageError
from tests.audited_days import DAY, EVENTS, AuditedDays
from tests.failing import dies_at

DEFECTS = {
    "half the day missing": (
        "DELETE FROM {silver} WHERE _event_date = DATE'2026-01-28' AND hour(event_timestamp) >= 12",
        {"day-volume-usual", "day-gold-was-right"},
    ),
    "a customer doubled": (
        "INSERT INTO {silver} BY NAME SELECT concat('again-', event_id) AS event_id, * EXCEPT (event_id) FROM {silver} "
        "WHERE _event_date = DATE'2026-01-28' AND customer_id = 'c0'",
        {"customers-not-repeated", "customers-large-volume-usual"},
    ),
    "an event twice": (
        "INSERT INTO {silver} SELECT * FROM {silver} WHERE event_id = '2026-01-28-0-1'",
        {"silver-event-id-unique"},
    ),
    "negative sums": (
        "UPDATE {silver} SET response_bytes = -response_bytes WHERE _event_date = DATE'2026-01-28' AND customer_id = 'c1'",
        {"silver-response-bytes-in-range", "gold-response-bytes-not-negative"},
    ),
    "a region that nobody announced": (
        "UPDATE {silver} SET region = 'moon-1' WHERE event_id = '2026-01-28-0-1'",
        {"silver-region-known"},
    ),
    "bytes by a factor of 100": (
        "UPDATE {silver} SET response_bytes = response_bytes * 100, request_bytes = request_bytes * 100 "
        "WHERE _event_date = DATE'2026-01-28'",
        {"day-size-usual", "customers-large-size-usual"},
    ),
    "all late": (
        "UPDATE {silver} SET _is_late_arriving = true WHERE _event_date = DATE'2026-01-28'",
        {"day-late-share"},
    ),
    "nulls in a key": (
        "UPDATE {silver} SET customer_id = NULL WHERE event_id = '2026-01-28-0-1'",
        {"silver-customer-present", "gold-customer-present"},
    ),
    "Gold from another day": (
        "MERGE INTO {daily} t USING (SELECT * FROM {daily} WHERE day = DATE'2026-01-26') s "
        "ON t.day = DATE'2026-01-28' AND t.customer_id = s.customer_id "
        "WHEN MATCHED THEN UPDATE SET t.event_count = s.event_count, t.response_bytes = s.response_bytes",
        {"day-gold-was-right-of-most"},
    ),
}


@pytest.mark.faults
@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_seen_by_the_expectations_that_are_for_it(days: AuditedDays, defect: str) -> None:
    statement, expected = DEFECTS[defect]
    days.execute(statement)
    found = days.audit()

    assert found.gate is Gate.AUDITED
    assert expected <= {one.expectation for one in found.blocking}, [str(one) for one in found.failures]


def test_defects_at_once_are_each_named(days: AuditedDays) -> None:
    expected = set()
    for defect in ("negative sums", "a region that nobody announced", "all late", "nulls in a key", "a customer doubled"):
        days.execute(DEFECTS[defect][0])
        expected |= DEFECTS[defect][1]

    assert expected <= {one.expectation for one in days.audit().blocking}


def test_sound_day_passes_and_is_closed_and_a_second_run_audits_nothing(days: AuditedDays) -> None:
    assert days.billed() == {}
    outcome = days.reconcile()

    assert outcome.audit is not None
    assert [str(one) for one in outcome.audit.blocking] == []
    assert (outcome.status, outcome.audit.gate) == ("final", Gate.PASSED)
    assert sum(days.billed().values()) == EVENTS
    assert DeltaTable(days.paths.candidates).to_pyarrow_table().num_rows == 0
    assert Path(str(outcome.audit.docs)).is_file()
    (recorded,) = days.audits()
    assert (recorded.run_id, recorded.day, recorded.gate, len(recorded.results)) == (outcome.run_id, DAY, Gate.PASSED, 44)
    assert (recorded.silver_version, recorded.override) == (outcome.silver_version, None)

    again = days.reconcile()
    assert (again.audit, again.differences, len(days.audits())) == (None, {}, 1)


def test_refused_day_is_left_as_it_was_until_it_is_mended_or_overridden(
    days: AuditedDays, monkeypatch: pytest.MonkeyPatch
) -> None:
    days.execute("UPDATE {silver} SET region = 'moon-1' WHERE event_id = '2026-01-28-0-1'")
    # Gold is behind in one event, too: a refused day is not repaired either.
    days.add(DAY, events=1, seed=5)
    versions = {path: DeltaTable(path).version() for path in (days.paths.hourly, days.paths.daily, days.paths.adjustments)}
    refused = days.reconcile()

    assert refused.is_refused
    assert refused.status == "provisional"
    assert {path: DeltaTable(path).version() for path in versions} == versions
    assert days.billed() == {}
    candidate = DeltaTable(days.paths.candidates).to_pyarrow_table()
    assert (sum(candidate["event_count"].to_pylist()), set(candidate["run_id"].to_pylist())) == (EVENTS + 1, {refused.run_id})
    assert list(waiting(days.audits())) == [DAY]
    assert days.reconcile().is_refused  # a second run does not let it pass
    assert len(DeltaTable(days.paths.candidates).to_pyarrow_table()) == len(candidate)

    override = Override("operator", "a new region, announced by mail")
    with dies_at(monkeypatch, "reconcile.after_publishing"), pytest.raises(InterruptedError):
        days.reconcile(override=override)
    assert sum(days.billed().values()) == EVENTS + 1
    # The killed run left its candidate: without the override the next run refuses nothing, as the day is billed.
    settled = days.reconcile()
    assert settled.audit is not None
    assert (settled.status, settled.audit.gate, waiting(days.audits())) == ("final", Gate.SETTLED, {})
    assert DeltaTable(days.paths.candidates).to_pyarrow_table().num_rows == 0

    newest = next(one for one in days.audits() if one.gate is Gate.OVERRIDDEN)
    assert newest.override == override
    assert [one.expectation for one in newest.blocking] == ["silver-region-known"]


def test_adjustments_of_a_closed_day_pass_the_gate_too(days: AuditedDays) -> None:
    closed = DAY - timedelta(days=1)
    bill, version = days.billed(closed), DeltaTable(days.paths.silver).version()
    days.execute("DELETE FROM {silver} WHERE _event_date = DATE'2026-01-27' AND hour(event_timestamp) < 12")
    refused = days.reconcile(closed)

    assert refused.is_refused
    assert refused.was_final
    assert days.billed(closed) == bill
    days.execute(f"RESTORE TABLE {{silver}} TO VERSION AS OF {version}")
    mended = days.reconcile(closed)  # nothing is due any more, but the day waited, so it is looked at again
    assert mended.audit is not None
    assert (mended.audit.gate, mended.adjusted, days.billed(closed)) == (Gate.SETTLED, 0, bill)
    assert waiting(days.audits()) == {}
    assert DeltaTable(days.paths.candidates).to_pyarrow_table().num_rows == 0


def test_day_without_an_event_after_days_that_were_billed_is_missing(days: AuditedDays) -> None:
    outcome = days.reconcile(DAY + timedelta(days=1))

    assert outcome.is_refused
    assert outcome.audit is not None
    assert "day-volume-usual" in {one.expectation for one in outcome.audit.blocking}
    first = days.reconcile(DAY - timedelta(days=100))
    assert (first.audit, first.status) == (None, "provisional")


def test_first_day_ever_and_a_day_of_few_events_have_nothing_to_be_compared_with(days: AuditedDays) -> None:
    first = DAY - timedelta(days=30)
    days.add(first, events=40, _is_late_arriving=F.lit(True))
    outcome = days.reconcile(first)

    assert outcome.audit is not None
    assert [str(one) for one in outcome.audit.failures] == []
    assert outcome.status == "final"


def test_override_without_a_reason_is_refused() -> None:
    from pipelines.gold.gate.gate import read_override  # noqa: PLC0415

    with pytest.raises(UsageError, match="--override is empty"):
        read_override("  \n ")
    assert read_override(None) is None
    given = read_override(" tax  holiday\n")
    assert given is not None
    assert given.reason == "tax holiday"
    assert given.by
