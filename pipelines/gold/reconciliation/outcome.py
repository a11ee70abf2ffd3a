"""Holds what one run of the reconciliation found and did, and says it in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pipelines.gold.gate.results import Audit, Gate


@dataclass(frozen=True)
class Outcome:
    """What one run found: events in Gold before and in Silver, events by which hourly rows were off, differences by cause.

    `adjusted`: rows added to a closed day's bill. After a `dry_run` nothing of it was done.
    """

    run_id: str
    day: date
    silver_version: int
    gold_version: int
    """Version of Gold's hourly table that was compared."""
    events_before: int
    events_after: int
    events_off: int
    differences: dict[tuple[str, str], int]
    status: str
    """Billing status of the day after a run that publishes."""
    was_final: bool
    bills: bool
    """Whether there is something to bill, which the gate has to let pass: a day to close, or adjustments to book."""
    adjusted: int = 0
    dry_run: bool = False
    audit: Audit | None = None
    """What the gate found; None where the run had nothing to bill."""

    def __str__(self) -> str:
        found = ", ".join(f"{count:,} {grain} {cause}" for (grain, cause), count in sorted(self.differences.items()))
        bill = f"; {self.adjusted:,} adjustments to the bill" if self.was_final else ""
        return (
            f"{self.day}: Gold is off by {self.events_off:,} of {self.events_after:,} events; differences: {found or 'none'}"
            f"{bill}; {self._fate}."
        )

    @property
    def is_refused(self) -> bool:
        """Whether the gate kept the day from being published."""
        return self.audit is not None and self.audit.gate is Gate.REFUSED

    @property
    def has_no_events(self) -> bool:
        """Whether nothing stands on the day's bill, nor can: then there is no row that could be final."""
        return not self.was_final and self.events_after == 0

    @property
    def _fate(self) -> str:
        if self.has_no_events:
            return "the day has no event in Silver, so there is no bill and nothing is closed"
        return (
            f"the day is {self.status} after a run that its audit lets pass"
            if self.bills
            else f"the day is {self.status} after a run"
        )
