"""Gold job: Silver's change feed -> `gold.api_usage_by_key`, `gold.api_usage_hourly` and `gold.api_usage_daily`."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from pipelines.gold.increments.by_key import ByKey
from pipelines.gold.increments.step import Limits
from pipelines.gold.publish import days_of, hours_of
from pipelines.gold.schema import BY_KEY_TABLE, DAILY_TABLE, HOURLY_TABLE
from pipelines.gold.sink import JOB, GoldSink, touched_hours
from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.days import parse_optional_day
from pipelines.lake.errors import StoppedError, UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.lake.tables import GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER
from pipelines.runtime import delta, jobs
from pipelines.runtime.flags import job_parser, parse_version
from pipelines.runtime.guards.start import Start
from pipelines.runtime.replay import NOTHING_THERE, Plan, Selection, open_plan
from pipelines.runtime.start_up import look_at_source, look_at_tables, open_start
from pipelines.runtime.stream_life import start_stream

_RECOMPUTED = 16
"""Times `gold.max_bytes_per_trigger`: a version of Silver that changed more has usage by key computed anew."""


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    checkpoint_path: str | None = None,
    trigger: str | None = None,
    starting_offsets: str | None = None,
) -> StreamingQuery:
    """Start the stream.

    Raises UsageError (no Silver table, wrong offsets, versions that Silver's log has no more), CheckpointError; then nothing
    is written.
    """
    silver = SILVER.path(settings)
    # Once for this start: another generation may be made meanwhile.
    path = checkpoint_path_of(settings, JOB, checkpoint_path)
    start = _start(spark, settings, checkpoint_path=path, starting=starting_offsets or "")
    look_at_source(start)
    starting = _starting_version(starting_offsets, delta.current_version(spark, silver))
    start = replace(start, first_version=int(starting))
    checkpoint = open_start(start, lambda: _ensure_tables(start)).checkpoint
    with checkpoint.lock.released_on_error():
        if checkpoint.starting and not starting_offsets:
            # Made from what the tables hold, after the old one was lost.
            starting = _starting_version(checkpoint.starting, delta.current_version(spark, silver))

        # The change feed, not the table: an update in Silver (an earlier copy that came later) touches two hours.
        changes = (
            spark.readStream.format("delta")
            .option("readChangeFeed", "true")
            .option("startingVersion", starting)
            .option("maxBytesPerTrigger", settings.gold.max_bytes_per_trigger)
            .option("maxFilesPerTrigger", 100_000)
            .load(silver)
            .select("event_timestamp", "_commit_version")
        )
        sink = _sink(spark, settings, checkpoint)
        writer = changes.writeStream.queryName(JOB).option("checkpointLocation", checkpoint.path)
        return start_stream(writer, sink, trigger or settings.gold.trigger, checkpoint.lock)


def replay(spark: SparkSession, settings: Settings, args: argparse.Namespace, stop: threading.Event) -> None:
    """Recompute the hours that a range of Silver's versions, or of days, touches: `{"silver_version": n}` bounds versions.

    Idempotent: Gold is a function of Silver. One that died is gone on with by the same flags; where they name no end, that is
    the version at which it was begun. Raises UsageError (versions or days that Silver does not have, a checkpoint that is
    another's); then nothing is written.
    """
    start = _start(spark, settings, checkpoint_path=args.checkpoint_path or "", is_replay=True, dry_run=args.dry_run)
    look_at_source(start)
    current = delta.current_version(spark, SILVER.path(settings))
    first = int(_starting_version(args.starting_offsets, current))
    last = int(_starting_version(args.ending_offsets, current, "--ending-offsets")) if args.ending_offsets else current
    days = Selection(
        from_date=parse_optional_day(args.from_date, "--from-date"), to_date=parse_optional_day(args.to_date, "--to-date")
    )
    days.refuse_unknown({}, "Silver")
    if first > last:
        msg = f"Version {first} to start at is after version {last} to end with; correct the offsets."
        raise UsageError(msg)
    # It reads Silver's changes before it opens its checkpoint.
    look_at_tables(replace(start, first_version=None if days.is_bounded else first))
    hours, versions, changes = _hours_again(spark, settings, first, last, days)
    if not hours:
        raise UsageError(NOTHING_THERE.format("Silver"))
    sys.stderr.write(f"replay of {len(hours):,} hours ({changes:,} rows) from {hours[0]:%F %H:00} to {hours[-1]:%F %H:00}\n")
    if args.dry_run:
        return
    if stop.is_set():
        msg = "The replay was stopped before it wrote anything; the same command does it."
        raise StoppedError(msg)
    what = json.dumps({"versions": [first, last if args.ending_offsets else None], "days": days.text()})
    checkpoint = open_start(replace(start, starting=what), lambda: _ensure_tables(start)).checkpoint
    with checkpoint.lock:
        begun_at = open_plan(checkpoint, Plan([], changes, last)).version
        if begun_at is not None and begun_at != last:
            hours, versions, changes = _hours_again(spark, settings, first, begun_at, days)
        _sink(spark, settings, checkpoint).publish(spark, hours, versions, changes, 0)


def _hours_again(
    spark: SparkSession, settings: Settings, first: int, last: int, days: Selection
) -> tuple[list[datetime], list[int], int]:
    silver = SILVER.path(settings)
    if days.is_bounded:
        rows = spark.read.format("delta").option("versionAsOf", last).load(silver).where(days.condition())
        hours, versions, changes = touched_hours(rows.select("event_timestamp", F.lit(last).alias("_commit_version")))
        if not hours:
            return [], [], 0
        # All hours of the days that Silver or Gold has: one that has no event any more must not keep its rows.
        wanted = sorted({*days_of(hours), *_gold_days(spark, settings, days)})
        return [hours_of(day)[0] + timedelta(hours=hour) for day in wanted for hour in range(24)], versions, changes
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    return touched_hours(reader.option("startingVersion", first).option("endingVersion", last).load(silver))


def _gold_days(spark: SparkSession, settings: Settings, days: Selection) -> list[date]:
    found: list[date] = []
    for name, day in ((GOLD_HOURLY, F.to_date("hour")), (GOLD_DAILY, F.col("day"))):
        path = name.path(settings)
        if delta.is_delta_table(spark, path):
            rows = spark.read.format("delta").load(path).select(day.alias("_event_date")).where(days.condition())
            found += [row["_event_date"] for row in rows.distinct().collect()]
    return found


def _start(
    spark: SparkSession,
    settings: Settings,
    *,
    checkpoint_path: str,
    starting: str = "",
    is_replay: bool = False,
    dry_run: bool = False,
) -> Start:
    return Start(
        spark=spark,
        settings=settings,
        job=JOB,
        reads=(SILVER, LEDGER),
        writes=(BY_KEY_TABLE, HOURLY_TABLE, DAILY_TABLE),
        checkpoint_path=checkpoint_path,
        starting=starting,
        is_replay=is_replay,
        dry_run=dry_run,
    )


def _ensure_tables(start: Start) -> None:
    for table in start.writes:
        delta.ensure_table(start.spark, table, table.name.path(start.settings))


def _sink(spark: SparkSession, settings: Settings, checkpoint: Checkpoint) -> GoldSink:
    silver, by_key, hourly, daily = (name.path(settings) for name in (SILVER, GOLD_BY_KEY, GOLD_HOURLY, GOLD_DAILY))
    lease = lease_of(settings, "gold", job=JOB, run=checkpoint.generation)
    return GoldSink(ByKey(silver, by_key, _limits(spark, settings)), hourly, daily, checkpoint, Ledger(settings), lease)


def _limits(spark: SparkSession, settings: Settings) -> Limits:
    jvm: Any = spark._jvm
    step = int(jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(settings.gold.max_bytes_per_trigger))
    return Limits(step_bytes=step, recompute_bytes=_RECOMPUTED * step)


def _starting_version(text: str | None, current: int, flag: str = "--starting-offsets") -> str:
    """First Silver version to read: `{"silver_version": 12}`; without it, all of them."""
    if text is None:
        return "0"
    version = parse_version(text, "silver_version")
    if version is None or version > current:
        msg = f'The value of {flag} is not understood, expected {{"silver_version": n}} with n from 0 to {current}.'
        raise UsageError(msg)
    return str(version)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from the command line."""
    return jobs.run_stream(run, replay, JOB, job_parser(__doc__ or ""), argv)


if __name__ == "__main__":
    run_process(main)
