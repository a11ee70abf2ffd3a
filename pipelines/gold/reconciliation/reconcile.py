"""Reconciles one day: compares Gold with a recompute of Silver, records what differs, audits it, publishes it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.gate.candidate import clear_candidate, has_candidate, read_candidate, write_candidate
from pipelines.gold.gate.gate import AuditedRun, audit_day, open_suites
from pipelines.gold.gate.history import has_history
from pipelines.gold.gate.results import Override
from pipelines.gold.gate.sources import Sources
from pipelines.gold.gate.suites import Suite
from pipelines.gold.paths import Paths
from pipelines.gold.publish import hours_of, merge_daily, merge_hourly
from pipelines.gold.reconciliation.adjustments import book, build_adjustments
from pipelines.gold.reconciliation.closing import grace_has_passed
from pipelines.gold.reconciliation.differences import find_differences, find_unexplained
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.read_day import DayRead, read_day
from pipelines.gold.reconciliation.record import record_differences, record_run
from pipelines.gold.schema import ADJUSTMENTS_TABLE, DAILY_KEYS, DAILY_MEASURES, FINAL, PROVISIONAL, RECONCILIATION_TABLE
from pipelines.gold.transforms import build_daily, build_hourly
from pipelines.lake import failpoints
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.settings import Settings
from pipelines.runtime import delta

JOB = "reconcile"


@dataclass(frozen=True)
class _Run:
    """One run; `closes`: whether an open day becomes final."""

    spark: SparkSession
    settings: Settings
    paths: Paths
    run_id: str
    day: date
    now: datetime
    closes: bool
    dry_run: bool
    suites: Sequence[Suite]
    override: Override | None


def reconcile(
    spark: SparkSession,
    settings: Settings,
    paths: Paths,
    day: date,
    now: datetime,
    *,
    may_close: bool = True,
    dry_run: bool = False,
    suites: Sequence[Suite] | None = None,
    override: Override | None = None,
    say: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Reconcile `day`. A second run finds nothing to do; one that was killed is completed by the next.

    Where there is something to bill (a day to close, adjustments to book), its candidate is audited first; a day that the gate
    refuses is left as it is, hours included. The daily rows of a day that is final are never rewritten: what Silver gives beyond
    them is added as adjustments.

    `may_close`: whether an open day may become final; `dry_run`: only say what would be done; `suites`: what the gate asks
    (default: those of the settings); `override`: publish whatever the audit says; `say` is told what was found before anything is
    written. Raises UsageError where a table is missing.
    """
    for path, what in (
        (paths.silver, "the Silver table"),
        (paths.hourly, "Gold's hourly table"),
        (paths.daily, "Gold's daily table"),
    ):
        delta.require_table(spark, path, what)
    closes = may_close and grace_has_passed(day, now, settings.reconcile.grace_hours)
    suites = open_suites(settings) if suites is None else suites
    run = _Run(spark, settings, paths, uuid.uuid4().hex[:12], day, now, closes, dry_run, suites, override)
    # The stream writes the same rows: one of the two waits.
    with nullcontext() if dry_run else lease_of(settings, "gold", job=JOB, run=run.run_id).hold():
        if not dry_run:
            delta.ensure_table(spark, RECONCILIATION_TABLE, paths.reconciliation)
            delta.ensure_table(spark, ADJUSTMENTS_TABLE, paths.adjustments)
        return _reconcile(run, say)


def _reconcile(run: _Run, say: Callable[[Outcome], None]) -> Outcome:
    read = read_day(run.spark, run.paths, run.day)
    recomputed = build_hourly(read.silver).persist()
    found = find_differences(read, recomputed).persist()
    try:
        outcome = _compare(run, read, recomputed, found)
        due = _due_adjustments(outcome, read, recomputed)
        outcome = replace(outcome, adjusted=due.count() if due is not None else 0)
        outcome = replace(outcome, bills=_bills(run, read, outcome))
        say(outcome)
        if run.dry_run:
            return outcome
        # The evidence is written first: a repair that is killed half-way has still said what it found.
        record_differences(run.spark, run.paths, found, outcome, run.now)
        failpoints.reach("reconcile.after_evidence")
        if outcome.bills:
            outcome = _bill(run, read, recomputed, found, outcome)
        else:
            _repair(run, read, recomputed)
        record_run(run.spark, run.paths, outcome, run.now)
    finally:
        found.unpersist()
        recomputed.unpersist()
    return outcome


def _bills(run: _Run, read: DayRead, outcome: Outcome) -> bool:
    """Whether there is something to bill, or a refused day that is looked at again.

    A day without any event is one, too, where days before it were billed: it is missing, rather than quiet.
    """
    if read.bill is not None:
        return outcome.adjusted > 0 or has_candidate(run.spark, run.paths.candidates, run.day)
    return run.closes and (outcome.events_after > 0 or has_history(run.spark, run.paths.daily, run.day))


def _bill(run: _Run, read: DayRead, recomputed: DataFrame, found: DataFrame, outcome: Outcome) -> Outcome:
    """Write the candidate where billing does not see it, audit it, and publish it where the gate lets it pass."""
    spark, path, version = run.spark, run.paths.candidates, read.silver_version
    daily = build_daily(recomputed)
    written = write_candidate(spark, path, daily, run.day, silver_version=version, run_id=run.run_id, now=run.now)
    failpoints.reach("reconcile.after_candidate")
    candidate = read_candidate(spark, path, run.day, written)
    sources = Sources(
        spark, run.settings, run.day, version, read.silver, recomputed, candidate, find_unexplained(found), run.paths
    )
    audit = audit_day(sources, run.suites, AuditedRun(run.run_id, written, publishes=True, override=run.override))
    failpoints.reach("reconcile.after_audit")
    outcome = replace(outcome, audit=audit)
    if outcome.is_refused:
        return replace(outcome, status=FINAL if outcome.was_final else PROVISIONAL, adjusted=0)
    booked = _publish(run, read, recomputed, candidate)
    failpoints.reach("reconcile.after_publishing")
    clear_candidate(spark, path, run.day)
    return replace(outcome, adjusted=booked)


def _compare(run: _Run, read: DayRead, recomputed: DataFrame, found: DataFrame) -> Outcome:
    """Count what was found; nothing is adjusted yet, and what is to be billed is not known."""
    events = _sum(recomputed, "event_count")
    was_final = read.bill is not None
    return Outcome(
        run_id=run.run_id,
        day=run.day,
        silver_version=read.silver_version,
        gold_version=read.gold_version,
        events_before=_sum(read.hourly, "event_count"),
        events_after=events,
        events_off=_sum(found.where("grain = 'hourly' AND measure = 'event_count'"), _off()),
        differences={(row["grain"], row["cause"]): row["count"] for row in found.groupBy("grain", "cause").count().collect()},
        status=FINAL if was_final or (run.closes and events) else PROVISIONAL,
        was_final=was_final,
        bills=False,
        dry_run=run.dry_run,
    )


def _due_adjustments(outcome: Outcome, read: DayRead, recomputed: DataFrame) -> DataFrame | None:
    if read.bill is None or not any(grain == "daily" for grain, _ in outcome.differences):
        return None
    return build_adjustments(read.silver, build_daily(recomputed), read.bill.rows)


def _publish(run: _Run, read: DayRead, recomputed: DataFrame, candidate: DataFrame) -> int:
    """Close an open day with the audited rows, or book what a closed one lacks of them; return the number of rows booked.

    Each is one commit to the one table of the bill that changes, so that no reader of the bill sees half a day.
    """
    _repair_hours(run, recomputed)
    version = read.silver_version
    if read.bill is None:
        merge_daily(run.spark, run.paths.daily, candidate, [run.day], run.now, silver_version=version, close=True)
        failpoints.reach("reconcile.after_daily")
        return 0
    due = build_adjustments(read.silver, candidate.select(*DAILY_KEYS, *DAILY_MEASURES), read.bill.rows)
    path = run.paths.adjustments
    booked = book(run.spark, path, due, read.bill, silver_version=version, run_id=run.run_id, now=run.now)
    failpoints.reach("reconcile.after_adjustments")
    return booked


def _repair(run: _Run, read: DayRead, recomputed: DataFrame) -> None:
    """Make Gold what Silver gives, where nothing is to be billed: all of an open day, of a closed one the hours."""
    _repair_hours(run, recomputed)
    if read.bill is None:
        daily = build_daily(recomputed)
        merge_daily(run.spark, run.paths.daily, daily, [run.day], run.now, silver_version=read.silver_version)
        failpoints.reach("reconcile.after_daily")


def _repair_hours(run: _Run, recomputed: DataFrame) -> None:
    # The hours stay a function of Silver, also of a closed day: only the bill is closed.
    hours = [hours_of(run.day)[0] + timedelta(hours=hour) for hour in range(24)]
    merge_hourly(run.spark, run.paths.hourly, recomputed, hours, run.now)
    failpoints.reach("reconcile.after_hourly")


def _off() -> Column:
    return F.abs(F.coalesce("after", F.lit(0)) - F.coalesce("before", F.lit(0)))


def _sum(frame: DataFrame, measure: Column | str) -> int:
    return int(frame.agg(F.sum(measure)).collect()[0][0] or 0)
