"""Tells what audits of days found, and which days wait at the gate before the bill; needs no JVM."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from pipelines.gold.gate.results import Audit, QualityStore, Result, waiting
from pipelines.lake.access import require_lake
from pipelines.lake.settings import Settings

_NEWEST_DAYS = 14
"""Audited days that are shown where no day is named."""


@dataclass(frozen=True)
class Audits:
    """Audits that an operator asked for: all of `day`, the newest first; without a day the newest of each of the last days.

    `waiting`: days that wait at the gate, with the audit that refused them, the oldest first; with a day at most that day.
    """

    day: date | None
    found: tuple[Audit, ...]
    waiting: dict[date, Audit]

    @property
    def newest(self) -> Audit | None:
        """The audit that ended last."""
        return max(self.found, key=lambda audit: audit.audited_at, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"audits": [_plain(audit) for audit in self.found], "waiting": [day.isoformat() for day in self.waiting]}


def read_audits(settings: Settings, day: date | None) -> Audits:
    """Read the audits of `day`, or of the last audited days; raises UsageError where there is no lake."""
    audits = QualityStore(settings).audits(day)
    if not audits:
        require_lake(settings)
    return Audits(day, tuple(audits if day else _newest_of_each(audits)), waiting(audits))


def failures_first(audit: Audit) -> list[Result]:
    """All results: what blocks, what else fails, and then what holds, as the suites have it."""
    return [*audit.failures, *(one for one in audit.results if not one.failed)]


def what_makes_one(settings: Settings, day: date | None) -> str:
    """Say that there is no audit, and how one comes to be."""
    of, date_ = f" of {day}" if day else "", day or "DAY"
    return (
        f"No audit{of} is recorded at {QualityStore(settings).path}; the daily batch makes one where a day is to be billed "
        f"(`python batch/reconcile_gold.py --date {date_}`), and `lakehouse quality run --date {date_}` makes one at any time."
    )


def _newest_of_each(audits: Sequence[Audit]) -> list[Audit]:
    """The newest audit of each of the last days, the last day first; `audits`: the newest first."""
    newest: dict[date, Audit] = {}
    for audit in audits:
        newest.setdefault(audit.day, audit)
    return [newest[day] for day in _last(newest)]


def _last(days: Collection[date]) -> list[date]:
    return sorted(days, reverse=True)[:_NEWEST_DAYS]


def _plain(audit: Audit) -> dict[str, Any]:
    used = audit.override
    return {
        "run_id": audit.run_id,
        "day": audit.day.isoformat(),
        "audited_at": audit.audited_at.isoformat(),
        "gate": str(audit.gate),
        "silver_version": audit.silver_version,
        "gold_version": audit.gold_version,
        "overridden_by": used.by if used else None,
        "override_reason": used.reason if used else None,
        "docs": audit.docs,
        "expectations": len(audit.results),
        "failures": [one.expectation for one in audit.failures],
        "blocking": [one.expectation for one in audit.blocking],
        "results": [asdict(one) for one in failures_first(audit)],
    }
