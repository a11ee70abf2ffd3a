"""Billed days for which events came later: they wait for the daily batch to book an adjustment."""

from __future__ import annotations

from collections.abc import Iterator

from lakehouse.operations.doctor.facts import Facts
from lakehouse.operations.doctor.findings import Finding


def check_billing(facts: Facts) -> Iterator[Finding]:
    """Compare Gold's live figures of closed days with bill and adjustments."""
    days = facts.closed_days
    if days:
        events, customers = sum(abs(one.events) for one in days), max(one.customers for one in days)
        yield Finding(
            id="adjustments-due",
            severity="warning",
            title="Closed days wait for adjustments",
            evidence=f"Gold has other counts than bill and adjustments for {', '.join(str(one.day) for one in days)}.",
            confidence="certain",
            at_stake=f"{events:,} events of {customers:,} customers or more are on no bill.",
            playbook="billing",
            commands=tuple(facts.commands.python("batch/reconcile_gold.py", "--date", str(one.day)) for one in days),
        )
