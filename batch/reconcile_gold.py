"""Daily batch: recompute a day of Gold from Silver, say what differed and why, repair it, close the day for billing."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from batch.adjustments import Bill, book, build_adjustments, read_bill
from batch.reconciliation import build_differences, build_pending
from pipelines.gold.publish import day_of, hours_of, merge_daily, merge_hourly, moment
from pipelines.gold.schema import (
    ADJUSTMENTS_TABLE,
    DAILY_KEYS,
    DAILY_MEASURES,
    DAILY_TABLE,
    FINAL,
    HOURLY_KEYS,
    HOURLY_MEASURES,
    HOURLY_TABLE,
    PROVISIONAL,
    RECONCILIATION_TABLE,
    TOTALS,
)
from pipelines.gold.transforms import build_daily, build_hourly
from pipelines.lake import failpoints
from pipelines.lake.access import require_access
from pipelines.lake.days import parse_day
from pipelines.lake.errors import UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.logging import Log
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.lake.tables import ADJUSTMENTS, GOLD_DAILY, GOLD_HOURLY, RECONCILIATION, SILVER
from pipelines.runtime import delta, jobs
from pipelines.runtime.guards.start import Start
from pipelines.runtime.session import build_session
from pipelines.runtime.start_up import look_at_source, look_at_tables

JOB = "reconcile"
EXIT_WAS_OFF = 3
"""Exit code where Gold was off by more than the tolerance; it is repaired all the same (unless the day is final)."""

_LOG = Log(JOB)


@dataclass(frozen=True)
class Paths:
    """Where the batch reads and writes."""

    silver: str
    hourly: str
    daily: str
    reconciliation: str
    adjustments: str

    @staticmethod
    def of(settings: Settings, *, silver: str | None = None, gold: str | None = None) -> Paths:
        """The tables of the settings' lake, or another Silver table and another folder of the Gold tables."""
        folder = gold.rstrip("/") if gold else None
        hourly, daily, adjustments = (
            f"{folder}/{name.table}" if folder else name.path(settings) for name in (GOLD_HOURLY, GOLD_DAILY, ADJUSTMENTS)
        )
        return Paths(silver or SILVER.path(settings), hourly, daily, RECONCILIATION.path(settings), adjustments)


@dataclass(frozen=True)
class Outcome:
    """What one run found: events in Gold before and in Silver, events by which hourly rows were off, differences by cause.

    `adjusted`: rows added to a closed day's bill. After a `dry_run` nothing of it was done.
    """

    run_id: str
    day: date
    silver_version: int
    events_before: int
    events_after: int
    events_off: int
    differences: dict[tuple[str, str], int]
    status: str
    was_final: bool
    adjusted: int = 0
    dry_run: bool = False

    def __str__(self) -> str:
        found = ", ".join(f"{count:,} {grain} {cause}" for (grain, cause), count in sorted(self.differences.items()))
        bill = f"; {self.adjusted:,} adjustments to the bill" if self.was_final else ""
        return (
            f"{self.day}: Gold is off by {self.events_off:,} of {self.events_after:,} events; differences: {found or 'none'}"
            f"{bill}; {self._fate}."
        )

    @property
    def has_no_events(self) -> bool:
        """Whether nothing stands on the day's bill, nor can: then there is no row that could be final."""
        return not self.was_final and self.events_after == 0

    @property
    def _fate(self) -> str:
        if self.has_no_events:
            return "the day has no event in Silver, so there is no bill and nothing is closed"
        return f"the day is {self.status} after a run"


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
    run_id = uuid.uuid4().hex[:12]
    # The stream writes the same rows: one of the two waits.
    with nullcontext() if dry_run else lease_of(settings, "gold", job=JOB, run=run_id).hold():
        if not dry_run:
            delta.ensure_table(spark, RECONCILIATION_TABLE, paths.reconciliation)
            delta.ensure_table(spark, ADJUSTMENTS_TABLE, paths.adjustments)
        return _reconcile(spark, settings, paths, run_id, day=day, now=now, may_close=may_close, dry_run=dry_run, say=say)


def _reconcile(
    spark: SparkSession,
    settings: Settings,
    paths: Paths,
    run_id: str,
    *,
    day: date,
    now: datetime,
    may_close: bool,
    dry_run: bool,
    say: Callable[[Outcome], None],
) -> Outcome:
    silver_version = delta.current_version(spark, paths.silver)
    begin, end = hours_of(day)
    silver = (
        spark.read.format("delta")
        .option("versionAsOf", silver_version)
        .load(paths.silver)
        .where(F.col("_event_date") == day_of(day))
        .where((F.col("event_timestamp") >= moment(begin)) & (F.col("event_timestamp") < moment(end)))
    )
    hourly = spark.read.format("delta").load(paths.hourly).where((F.col("hour") >= moment(begin)) & (F.col("hour") < moment(end)))
    daily = spark.read.format("delta").load(paths.daily).where(F.col("day") == day_of(day))
    was_final = daily.where(F.col("billing_status") == FINAL).limit(1).count() > 0
    close = was_final or (may_close and now >= _end_of(day) + timedelta(hours=settings.reconcile.grace_hours))
    bill = read_bill(spark, daily, paths.adjustments, paths.silver, day) if was_final else None

    recomputed = build_hourly(silver).persist()
    events = _sum(recomputed, "event_count")
    found = _differences(silver, hourly, bill.rows if bill else daily, recomputed, TOTALS if bill else DAILY_MEASURES).persist()
    try:
        outcome = Outcome(
            run_id=run_id,
            day=day,
            silver_version=silver_version,
            events_before=_sum(hourly, "event_count"),
            events_after=events,
            events_off=_sum(found.where("grain = 'hourly' AND measure = 'event_count'"), _off()),
            differences={(row["grain"], row["cause"]): row["count"] for row in found.groupBy("grain", "cause").count().collect()},
            status=FINAL if was_final or (close and events) else PROVISIONAL,
            was_final=was_final,
            dry_run=dry_run,
        )
        due = _adjustments(outcome, silver=silver, recomputed=recomputed, bill=bill)
        outcome = replace(outcome, adjusted=due.count() if due is not None else 0)
        say(outcome)
        if dry_run:
            return outcome
        # The evidence is written first: a repair that is killed half-way has still said what it found.
        _record(spark, paths, found, outcome, now)
        failpoints.reach("reconcile.after_evidence")
        # The hours stay a function of Silver, also of a closed day: only the bill is closed.
        hours = [begin + timedelta(hours=hour) for hour in range(24)]
        merge_hourly(spark, paths.hourly, recomputed, hours, now)
        failpoints.reach("reconcile.after_hourly")
        if bill is None:
            merge_daily(spark, paths.daily, build_daily(recomputed), [day], now, silver_version=silver_version, close=close)
            failpoints.reach("reconcile.after_daily")
        else:
            outcome = replace(outcome, adjusted=_adjust(spark, paths, outcome, now, bill=bill, due=due))
            failpoints.reach("reconcile.after_adjustments")
        _record_run(spark, paths, outcome, now)
    finally:
        found.unpersist()
        recomputed.unpersist()
    return outcome


def _adjust(spark: SparkSession, paths: Paths, outcome: Outcome, now: datetime, *, bill: Bill, due: DataFrame | None) -> int:
    if due is None:
        return 0
    return book(spark, paths.adjustments, due, bill, silver_version=outcome.silver_version, run_id=outcome.run_id, now=now)


def _adjustments(outcome: Outcome, *, silver: DataFrame, recomputed: DataFrame, bill: Bill | None) -> DataFrame | None:
    if bill is None or not any(grain == "daily" for grain, _ in outcome.differences):
        return None
    return build_adjustments(silver, build_daily(recomputed), bill.rows)


def _differences(
    silver: DataFrame, hourly: DataFrame, daily: DataFrame, recomputed: DataFrame, daily_measures: Sequence[str]
) -> DataFrame:
    """Find what differs, by hour and by day; `daily` are the daily rows, or a closed day's bill, which has `daily_measures`."""
    keyed = silver.select(
        F.date_trunc("hour", "event_timestamp").alias("hour"),
        F.col("_event_date").alias("day"),
        "customer_id",
        "endpoint",
        "_processed_at",
        "_is_late_arriving",
    )
    by_hour = build_differences(
        hourly, recomputed, build_pending(keyed, hourly, HOURLY_KEYS), grain="hourly", keys=HOURLY_KEYS, measures=HOURLY_MEASURES
    )
    by_day = build_differences(
        daily,
        build_daily(recomputed),
        build_pending(keyed, daily, DAILY_KEYS),
        grain="daily",
        keys=DAILY_KEYS,
        measures=daily_measures,
    )
    return by_hour.unionByName(by_day)


def _record(spark: SparkSession, paths: Paths, found: DataFrame, outcome: Outcome, now: datetime) -> None:
    if not outcome.differences:
        return
    rows = _with_run(spark, paths, found, outcome, now).withColumn("gold_version_after", F.lit(None).cast("bigint"))
    rows.select(RECONCILIATION_TABLE.column_names).coalesce(1).write.format("delta").mode("append").save(paths.reconciliation)


def _record_run(spark: SparkSession, paths: Paths, outcome: Outcome, now: datetime) -> None:
    causes = {f"{grain}.{cause}": count for (grain, cause), count in sorted(outcome.differences.items())}
    row = (None, "event_count", outcome.events_before, outcome.events_after, json.dumps(causes) if causes else "none", "day")
    frame = spark.createDataFrame([row], "key string, measure string, before bigint, after bigint, cause string, grain string")
    version = delta.last_version(spark, paths.hourly)
    rows = _with_run(spark, paths, frame, outcome, now).withColumn("gold_version_after", F.lit(version).cast("bigint"))
    rows.select(RECONCILIATION_TABLE.column_names).coalesce(1).write.format("delta").mode("append").save(paths.reconciliation)


def _with_run(spark: SparkSession, paths: Paths, frame: DataFrame, outcome: Outcome, now: datetime) -> DataFrame:
    return frame.withColumns(
        {
            "run_id": F.lit(outcome.run_id),
            "day": day_of(outcome.day),
            "reconciled_at": F.lit(now),
            "silver_version": F.lit(outcome.silver_version).cast("bigint"),
            "gold_version_before": F.lit(delta.last_version(spark, paths.hourly)).cast("bigint"),
            "billing_status": F.lit(outcome.status),
        }
    )


def _off() -> Column:
    return F.abs(F.coalesce("after", F.lit(0)) - F.coalesce("before", F.lit(0)))


def _sum(frame: DataFrame, measure: Column | str) -> int:
    return int(frame.agg(F.sum(measure)).collect()[0][0] or 0)


def _end_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def print_findings(outcome: Outcome) -> None:
    """Show in one line what was found, at once: it stands there before anything is written."""
    sys.stdout.write(f"{outcome}\n")
    sys.stdout.flush()


def print_outcome(outcome: Outcome) -> None:
    """Show a run as a table on standard output."""
    run = "dry run, nothing is written" if outcome.dry_run else f"run {outcome.run_id}"
    table = Table(title=f"Reconciliation of {outcome.day} ({run}, Silver version {outcome.silver_version})")
    for name in ("", "value"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("events in Gold before", f"{outcome.events_before:,}")
    table.add_row("events in Silver", f"{outcome.events_after:,}")
    table.add_row("events that Gold was off by", f"{outcome.events_off:,}")
    for (grain, cause), count in sorted(outcome.differences.items()):
        table.add_row(f"{grain} differences, {cause}", f"{count:,}")
    if outcome.was_final:
        table.add_row(f"adjustments {'to add' if outcome.dry_run else 'added'} to the bill", f"{outcome.adjusted:,}")
    was_closed = " (was closed: adjusted, not rewritten)" if outcome.was_final else ""
    status = "not closed: the day has no event" if outcome.has_no_events else f"{outcome.status}{was_closed}"
    table.add_row(f"billing status{' after a run' if outcome.dry_run else ''}", status)
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="conf/local.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--date", required=True, help="the day to reconcile, YYYY-MM-DD (UTC)")
    parser.add_argument("--silver-path", help="path of the Silver table (default: the settings' lake)")
    parser.add_argument("--gold-path", help="folder of the Gold tables (default: the settings' lake)")
    parser.add_argument("--dry-run", action="store_true", help="say what differs and would be done, and write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the batch from the command line; exit code 3 where Gold was off by more than the tolerance."""

    def job(args: argparse.Namespace, settings: Settings) -> int:
        day = parse_day(args.date, "--date")
        if day == date.max:  # Its end could not be named.
            msg = f"--date is {day}, the calendar's last day, which never ends; give a day that has events."
            raise UsageError(msg)
        paths = Paths.of(settings, silver=args.silver_path, gold=args.gold_path)
        if not (args.dry_run or args.silver_path or args.gold_path):
            require_access(settings, JOB)
        spark = build_session(settings, JOB)
        if args.gold_path is None:
            writes = (HOURLY_TABLE, DAILY_TABLE, ADJUSTMENTS_TABLE)
            start = Start(spark=spark, settings=settings, job=JOB, reads=(SILVER,), writes=writes)
            look_at_source(start)
            look_at_tables(start)
        outcome = reconcile(spark, settings, paths, day, datetime.now(UTC), dry_run=args.dry_run, say=print_findings)
        print_outcome(outcome)
        if not args.dry_run:
            _LOG.info("day reconciled", day=day, off=outcome.events_off, status=outcome.status, adjusted=outcome.adjusted)
        return EXIT_WAS_OFF if outcome.events_off > settings.reconcile.tolerance_events else 0

    return jobs.run_job(job, _parser(), argv)


if __name__ == "__main__":
    run_process(main)
