"""Days that the gate before the bill refused, and billed days for which events came later: the daily batch has work with both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lakehouse.operations.doctor.facts import Facts
from lakehouse.operations.doctor.findings import Finding

_SHOWN = 3
"""Days whose commands are given, and expectations that are named: the others mostly wait for the same cause."""


def check_billing(facts: Facts) -> Iterator[Finding]:
    """Look for days that wait at the gate, and compare Gold's live figures of closed days with bill and adjustments."""
    if facts.refused_days:
        yield _refused(facts)
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


def _refused(facts: Facts) -> Finding:
    days = facts.refused_days
    oldest, count = days[0], len(days)
    at = f"{oldest.audited_at:%Y-%m-%d %H:%M:%S} UTC"
    what = "1 day waits" if count == 1 else f"{count:,} days wait"
    named = [str(one.day) for one in days[:_SHOWN]]
    return Finding(
        id="gate-refused",
        severity="warning",
        title=f"{what} at the gate before the bill",
        evidence=f"The oldest, {oldest.day}, was refused at {at} for {_some(oldest.blocking)}.",
        confidence="certain",
        at_stake=(
            "No customer is billed for a day that waits, or an issued bill lacks its adjustments, until a run of the daily batch "
            f"passes the audit or an operator overrides it: {_some([str(one.day) for one in days])}."
        ),
        playbook="quality-gate",
        commands=(
            *(facts.commands.lakehouse("quality", "show", "--date", day) for day in named),
            *(facts.commands.python("batch/reconcile_gold.py", "--date", day) for day in named),
        ),
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
