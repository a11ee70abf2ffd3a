"""Closed days whose events came later than the bill, and days that wait at the gate; read from hand-made tables."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from lakehouse.operations.doctor.billing import check_billing
from lakehouse.operations.doctor.facts import ClosedDay, Facts, RefusedDay
from lakehouse.operations.doctor.reading_bills import read_closed_days, read_refused_days
from pipelines.gold.gate.results import Gate, Override, QualityStore
from pipelines.lake.tables import ADJUSTMENTS, GOLD_DAILY, GOLD_HOURLY
from tests.audits import AUDITED_AT, BLOCKS, HOLDS, UNKNOWN, WARNS, audit
from tests.lakehouse.conftest import T0
from tests.playbooks.commands import complaint

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


def test_day_waits_from_its_refusal_until_a_run_publishes_it(hand_lake: Any) -> None:
    hand_lake.write()
    assert read_refused_days(hand_lake.settings) == ()
    store, before = QualityStore(hand_lake.settings), DAY - timedelta(days=1)
    store.record(audit(Gate.REFUSED, HOLDS, WARNS, UNKNOWN, BLOCKS))
    store.record(audit(Gate.REFUSED, BLOCKS, day=before))
    # It publishes nothing, whatever it finds.
    store.record(audit(Gate.AUDITED, HOLDS, hours=1))
    day = RefusedDay(DAY, AUDITED_AT, ("rows-as-in-ledger", "volume-usual"))
    assert read_refused_days(hand_lake.settings) == (RefusedDay(before, AUDITED_AT - timedelta(days=1), ("volume-usual",)), day)
    store.record(audit(Gate.OVERRIDDEN, BLOCKS, day=before, hours=2, override=Override("ann", "known")))
    assert read_refused_days(hand_lake.settings) == (day,)
    store.record(audit(Gate.PASSED, HOLDS, hours=2))
    assert read_refused_days(hand_lake.settings) == ()


def test_finding_names_the_oldest_day_that_waits_and_what_blocks_it(sound: Facts) -> None:
    days = tuple(RefusedDay(DAY + timedelta(days=n), AUDITED_AT, (f"a{n}", "b", "c", "d")) for n in range(5))

    (found,) = check_billing(replace(sound, refused_days=days))

    assert (found.id, found.severity, found.confidence, found.playbook) == ("gate-refused", "warning", "certain", "quality-gate")
    assert found.title == "5 days wait at the gate before the bill"
    assert found.evidence == "The oldest, 2026-01-28, was refused at 2026-01-29 02:00:00 UTC for a0, b, c and 1 more."
    assert found.at_stake.endswith("2026-01-28, 2026-01-29, 2026-01-30 and 2 more.")
    assert found.commands[0] == "lakehouse quality show --date 2026-01-28 --config my.yaml"
    assert found.commands[3] == "python batch/reconcile_gold.py --config my.yaml --date 2026-01-28"
    assert len(found.commands) == 6
    assert [complaint(shlex.split(command)) for command in found.commands] == [None] * 6
    (one,) = check_billing(replace(sound, refused_days=days[4:]))
    assert one.title == "1 day waits at the gate before the bill"


def test_refused_day_stands_before_what_it_holds_up(sound: Facts) -> None:
    waits = RefusedDay(DAY, AUDITED_AT, ("a",))
    both = check_billing(replace(sound, refused_days=(waits,), closed_days=(ClosedDay(DAY, 5, 3),)))
    assert [one.id for one in both] == ["gate-refused", "adjustments-due"]
