"""Publishes a day: writes its candidate where billing does not see it, audits it, and bills what the gate lets pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pyspark.sql import DataFrame

from pipelines.gold.gate.candidate import clear_candidate, read_candidate, write_candidate
from pipelines.gold.gate.gate import AuditedRun, audit_day
from pipelines.gold.gate.results import Audit, Gate, Override
from pipelines.gold.gate.suites import Suite
from pipelines.gold.publish import hours_of, merge_daily, merge_hourly
from pipelines.gold.reconciliation.adjustments import book, build_adjustments
from pipelines.gold.reconciliation.compare_day import ComparedDay
from pipelines.gold.schema import DAILY_KEYS, DAILY_MEASURES
from pipelines.lake import failpoints
from pipelines.lake.settings import Settings


@dataclass(frozen=True)
class Publisher:
    """Writes what one run publishes or repairs. Each method may run again after a crash, and ends in the same rows.

    `suites`: what the gate asks; `override`: publish whatever the audit says.
    """

    settings: Settings
    run_id: str
    now: datetime
    suites: Sequence[Suite]
    override: Override | None = None

    def bill(self, compared: ComparedDay, *, is_due: bool) -> tuple[Audit, int]:
        """Bill the day if its candidate passes the audit; give the audit and the number of adjustments booked.

        A day that is refused is left as it is, hours included, and its candidate stays to be looked at. `is_due`: whether
        anything is left to bill; otherwise the day only stops waiting, whatever its audit says.
        """
        spark, path, day = compared.spark, compared.paths.candidates, compared.day
        version = compared.read.silver_version
        written = write_candidate(spark, path, compared.daily, day, silver_version=version, run_id=self.run_id, now=self.now)
        failpoints.reach("reconcile.after_candidate")
        candidate = read_candidate(spark, path, day, written)
        run = AuditedRun(self.run_id, written, publishes=True, is_due=is_due, override=self.override)
        audit = audit_day(compared.sources(self.settings, candidate), self.suites, run)
        failpoints.reach("reconcile.after_audit")
        if audit.gate is Gate.REFUSED:
            return audit, 0
        booked = self._publish(compared, candidate)
        failpoints.reach("reconcile.after_publishing")
        clear_candidate(spark, path, day)
        return audit, booked

    def repair(self, compared: ComparedDay) -> None:
        """Make Gold what Silver gives, where nothing is to be billed: all of an open day, of a closed one the hours."""
        self._repair_hours(compared)
        if compared.read.bill is None:
            self._merge_daily(compared, compared.daily, close=False)

    def _publish(self, compared: ComparedDay, candidate: DataFrame) -> int:
        """Close an open day with the audited rows, or book what a closed one lacks of them; return the number of rows booked.

        Each is one commit to the one table of the bill that changes, so that no reader of the bill sees half a day.
        """
        self._repair_hours(compared)
        read = compared.read
        if read.bill is None:
            self._merge_daily(compared, candidate, close=True)
            return 0
        due = build_adjustments(read.silver, candidate.select(*DAILY_KEYS, *DAILY_MEASURES), read.bill.rows)
        path, version = compared.paths.adjustments, read.silver_version
        booked = book(compared.spark, path, due, read.bill, silver_version=version, run_id=self.run_id, now=self.now)
        failpoints.reach("reconcile.after_adjustments")
        return booked

    def _repair_hours(self, compared: ComparedDay) -> None:
        # The hours stay a function of Silver, also of a closed day: only the bill is closed.
        merge_hourly(compared.spark, compared.paths.hourly, compared.hourly, _hours(compared.day), self.now)
        failpoints.reach("reconcile.after_hourly")

    def _merge_daily(self, compared: ComparedDay, rows: DataFrame, *, close: bool) -> None:
        spark, path, version = compared.spark, compared.paths.daily, compared.read.silver_version
        merge_daily(spark, path, rows, [compared.day], self.now, silver_version=version, close=close)
        failpoints.reach("reconcile.after_daily")


def audit_only(compared: ComparedDay, settings: Settings, suites: Sequence[Suite], run_id: str) -> Audit:
    """Audit the day as the gate would now; only results and pages are written."""
    run = AuditedRun(run_id, None, publishes=False)
    return audit_day(compared.sources(settings, compared.daily), suites, run)


def _hours(day: date) -> list[datetime]:
    return [hours_of(day)[0] + timedelta(hours=hour) for hour in range(24)]
