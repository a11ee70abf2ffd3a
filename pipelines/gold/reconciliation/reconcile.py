"""Reconciles one day: reads it, compares Gold with a recompute of Silver, records what differs, repairs it, closes the day."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.publish import hours_of, merge_daily, merge_hourly
from pipelines.gold.reconciliation.adjustments import book, build_adjustments
from pipelines.gold.reconciliation.closing import grace_has_passed
from pipelines.gold.reconciliation.differences import find_differences
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.paths import Paths
from pipelines.gold.reconciliation.read_day import DayRead, read_day
from pipelines.gold.reconciliation.record import record_differences, record_run
from pipelines.gold.schema import ADJUSTMENTS_TABLE, FINAL, PROVISIONAL, RECONCILIATION_TABLE
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
    paths: Paths
    run_id: str
    day: date
    now: datetime
    closes: bool
    dry_run: bool


def reconcile(
    spark: SparkSession,
    settings: Settings,
    paths: Paths,
    day: date,
    now: datetime,
    *,
    may_close: bool = True,
    dry_run: bool = False,
    say: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Reconcile `day`. A second run finds nothing to do; one that was killed is completed by the next.

    The daily rows of a day that is final are never rewritten: what Silver gives beyond them is added as adjustments.
    `may_close`: whether an open day may become final; `dry_run`: only say what would be done; `say` is told what was found
    before anything is written. Raises UsageError where a table is missing.
    """
    for path, what in (
        (paths.silver, "the Silver table"),
        (paths.hourly, "Gold's hourly table"),
        (paths.daily, "Gold's daily table"),
    ):
        delta.require_table(spark, path, what)
    closes = may_close and grace_has_passed(day, now, settings.reconcile.grace_hours)
    run = _Run(spark, paths, uuid.uuid4().hex[:12], day, now, closes, dry_run)
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
        say(outcome)
        if run.dry_run:
            return outcome
        # The evidence is written first: a repair that is killed half-way has still said what it found.
        record_differences(run.spark, run.paths, found, outcome, run.now)
        failpoints.reach("reconcile.after_evidence")
        outcome = replace(outcome, adjusted=_repair(run, read, recomputed, due))
        record_run(run.spark, run.paths, outcome, run.now)
    finally:
        found.unpersist()
        recomputed.unpersist()
    return outcome


def _compare(run: _Run, read: DayRead, recomputed: DataFrame, found: DataFrame) -> Outcome:
    """Count what was found; nothing is adjusted yet."""
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
        dry_run=run.dry_run,
    )


def _due_adjustments(outcome: Outcome, read: DayRead, recomputed: DataFrame) -> DataFrame | None:
    if read.bill is None or not any(grain == "daily" for grain, _ in outcome.differences):
        return None
    return build_adjustments(read.silver, build_daily(recomputed), read.bill.rows)


def _repair(run: _Run, read: DayRead, recomputed: DataFrame, due: DataFrame | None) -> int:
    """Make Gold what Silver gives, and close the day if it is time; return how many rows were added to a closed day's bill."""
    # The hours stay a function of Silver, also of a closed day: only the bill is closed.
    hours = [hours_of(run.day)[0] + timedelta(hours=hour) for hour in range(24)]
    merge_hourly(run.spark, run.paths.hourly, recomputed, hours, run.now)
    failpoints.reach("reconcile.after_hourly")
    version = read.silver_version
    if read.bill is None:
        daily = build_daily(recomputed)
        merge_daily(run.spark, run.paths.daily, daily, [run.day], run.now, silver_version=version, close=run.closes)
        failpoints.reach("reconcile.after_daily")
        return 0
    booked = 0
    if due is not None:
        path = run.paths.adjustments
        booked = book(run.spark, path, due, read.bill, silver_version=version, run_id=run.run_id, now=run.now)
    failpoints.reach("reconcile.after_adjustments")
    return booked


def _off() -> Column:
    return F.abs(F.coalesce("after", F.lit(0)) - F.coalesce("before", F.lit(0)))


def _sum(frame: DataFrame, measure: Column | str) -> int:
    return int(frame.agg(F.sum(measure)).collect()[0][0] or 0)
