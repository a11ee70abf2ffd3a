"""Audits made by hand, for what reads them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from pipelines.gold.gate.results import Audit, Gate, Result

DAY = date(2026, 1, 28)
AUDITED_AT = datetime(2026, 1, 29, 2, tzinfo=UTC)


def result(expectation: str, success: bool | None = True, severity: str = "blocks", **changes: Any) -> Result:
    """What came of an expectation of the suite `day`."""
    plain = {"observed": "7", "expected": "at most 0", "says": f"What {expectation} is for.", "playbook": "stale-data"}
    return Result(**{"suite": "day", "expectation": expectation, "severity": severity, "success": success, **plain, **changes})


HOLDS, WARNS = result("all-read"), result("late-share", success=False, severity="warns")
BLOCKS, UNKNOWN = result("volume-usual", success=False), result("rows-as-in-ledger", success=None)


def audit(gate: Gate, *results: Result, day: date = DAY, hours: float = 0, **changes: Any) -> Audit:
    """An audit of `day`, so many hours after the end of its grace; its run is named by both."""
    at = AUDITED_AT + (day - DAY) + timedelta(hours=hours)
    plain = {"run_id": f"run-{day:%m%d}-{hours:g}", "silver_version": 12, "gold_version": 3, "docs": f"docs/{day}/index.html"}
    return Audit(**{"day": day, "audited_at": at, "gate": gate, "results": results or (HOLDS,), **plain, **changes})
