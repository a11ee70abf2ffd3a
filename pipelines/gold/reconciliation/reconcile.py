"""Reconciles one day: compares Gold with a recompute of Silver, records what differs, audits it, publishes it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.gate.candidate import has_candidate
from pipelines.gold.gate.gate import open_suites
from pipelines.gold.gate.history import has_history
from pipelines.gold.gate.results import Audit, Override
from pipelines.gold.gate.suites import Suite
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.adjustments import build_adjustments
from pipelines.gold.reconciliation.closing import grace_has_passed
from pipelines.gold.reconciliation.compare_day import ComparedDay, compare_day
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.publishing import Publisher, audit_only
from pipelines.gold.reconciliation.record import record_differences, record_run
from pipelines.gold.schema import ADJUSTMENTS_TABLE, FINAL, PROVISIONAL, RECONCILIATION_TABLE
from pipelines.lake import failpoints
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.settings import Settings
from pipelines.runtime import delta

JOB = "reconcile"


@dataclass(frozen=True)
class _Run:
    """One run; `closes`: whether an open day becomes final."""

    run_id: str
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
    _require_tables(spark, paths)
    suites = open_suites(settings) if suites is None else suites
    closes = may_close and grace_has_passed(day, now, settings.reconcile.grace_hours)
    run = _Run(uuid.uuid4().hex[:12], now, closes, dry_run)
    publisher = Publisher(settings, run.run_id, now, suites, override)
    # The stream writes the same rows: one of the two waits.
    with nullcontext() if dry_run else lease_of(settings, "gold", job=JOB, run=run.run_id).hold():
        if not dry_run:
            delta.ensure_table(spark, RECONCILIATION_TABLE, paths.reconciliation)
            delta.ensure_table(spark, ADJUSTMENTS_TABLE, paths.adjustments)
        with compare_day(spark, paths, day) as compared:
            return _reconcile(run, compared, publisher, say)


def audit(spark: SparkSession, settings: Settings, paths: Paths, day: date, suites: Sequence[Suite]) -> Audit:
    """Audit `day` as the gate would now, and publish nothing: only results and pages are written. Takes no lease.

    Raises UsageError where a table is missing.
    """
    _require_tables(spark, paths)
    with compare_day(spark, paths, day) as compared:
        return audit_only(compared, settings, suites, uuid.uuid4().hex[:12])


def _reconcile(run: _Run, compared: ComparedDay, publisher: Publisher, say: Callable[[Outcome], None]) -> Outcome:
    outcome = _count(run, compared)
    outcome = replace(outcome, adjusted=_count_due(outcome, compared))
    outcome = replace(outcome, bills=_bills(run, compared, outcome))
    say(outcome)
    if run.dry_run:
        return outcome
    spark, paths = compared.spark, compared.paths
    # The evidence is written first: a repair that is killed half-way has still said what it found.
    record_differences(spark, paths, compared.differences, outcome, run.now)
    failpoints.reach("reconcile.after_evidence")
    if outcome.bills:
        audit, booked = publisher.bill(compared, is_due=not outcome.was_final or outcome.adjusted > 0)
        outcome = replace(outcome, audit=audit, adjusted=booked)
        if outcome.is_refused:
            outcome = replace(outcome, status=FINAL if outcome.was_final else PROVISIONAL)
    else:
        publisher.repair(compared)
    record_run(spark, paths, outcome, run.now)
    return outcome


def _require_tables(spark: SparkSession, paths: Paths) -> None:
    for path, what in (
        (paths.silver, "the Silver table"),
        (paths.hourly, "Gold's hourly table"),
        (paths.daily, "Gold's daily table"),
    ):
        delta.require_table(spark, path, what)


def _count(run: _Run, compared: ComparedDay) -> Outcome:
    """Count what was found; nothing is adjusted yet, and what is to be billed is not known."""
    read, found = compared.read, compared.differences
    events = _sum(compared.hourly, "event_count")
    was_final = read.bill is not None
    return Outcome(
        run_id=run.run_id,
        day=compared.day,
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


def _count_due(outcome: Outcome, compared: ComparedDay) -> int:
    """How many adjustments the bill of a closed day lacks."""
    read = compared.read
    if read.bill is None or not any(grain == "daily" for grain, _ in outcome.differences):
        return 0
    return build_adjustments(read.silver, compared.daily, read.bill.rows).count()


def _bills(run: _Run, compared: ComparedDay, outcome: Outcome) -> bool:
    """Whether there is something to bill, or a candidate of a closed day that was refused, or that a killed run left.

    A day without any event is one, too, where days before it were billed: it is missing, rather than quiet.
    """
    spark, paths, day = compared.spark, compared.paths, compared.day
    if outcome.was_final:
        return outcome.adjusted > 0 or has_candidate(spark, paths.candidates, day)
    return run.closes and (outcome.events_after > 0 or has_history(spark, paths.daily, day))


def _off() -> Column:
    return F.abs(F.coalesce("after", F.lit(0)) - F.coalesce("before", F.lit(0)))


def _sum(frame: DataFrame, measure: Column | str) -> int:
    return int(frame.agg(F.sum(measure)).collect()[0][0] or 0)
