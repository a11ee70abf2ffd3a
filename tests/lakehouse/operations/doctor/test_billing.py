"""Closed days whose events came later than the bill; read from hand-made tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from lakehouse.operations.doctor.billing import check_billing
from lakehouse.operations.doctor.facts import ClosedDay, Facts
from lakehouse.operations.doctor.reading_bills import read_closed_days
from pipelines.lake.tables import ADJUSTMENTS, GOLD_DAILY, GOLD_HOURLY
from tests.lakehouse.conftest import T0

DAY = T0.date()


def test_open_days_and_days_that_agree_need_nothing(hand_lake: Any) -> None:
    hand_lake.write()
    assert read_closed_days(hand_lake.settings) == ()
    for row in hand_lake.rows[GOLD_DAILY]:
        row["billing_status"] = "final"
    hand_lake.write(GOLD_DAILY)
    assert read_closed_days(hand_lake.settings) == ()


def test_event_after_the_bill_is_due_until_it_is_adjusted(hand_lake: Any, make_adjustment: Callable[..., dict[str, Any]]) -> None:
    for row in hand_lake.rows[GOLD_DAILY]:
        row["billing_status"] = "final"
    hand_lake.rows[GOLD_HOURLY][0]["event_count"] += 1
    hand_lake.write()
    assert read_closed_days(hand_lake.settings) == (ClosedDay(DAY, 1, 1),)
    hand_lake.rows[ADJUSTMENTS].append(make_adjustment(DAY, "cust-1"))
    hand_lake.write(ADJUSTMENTS)
    assert read_closed_days(hand_lake.settings) == ()


def test_finding_has_the_batch_for_each_day(sound: Facts) -> None:
    days = (ClosedDay(DAY - timedelta(days=1), -2, 1), ClosedDay(DAY, 5, 3))
    (found,) = check_billing(replace(sound, closed_days=days))
    assert (found.id, found.severity, found.playbook) == ("adjustments-due", "warning", "billing")
    assert found.at_stake.startswith("7 events of 3 customers")
    assert found.commands[1] == "python batch/reconcile_gold.py --config my.yaml --date 2026-01-28"
