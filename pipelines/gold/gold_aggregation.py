"""Gold job: Silver's change feed -> `gold.api_usage_hourly` and `gold.api_usage_daily`, by recompute and MERGE."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from datetime import date, datetime, timedelta

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from pipelines.gold.publish import days_of, hours_of
from pipelines.gold.schema import DAILY_TABLE, HOURLY_TABLE
from pipelines.gold.sink import JOB, GoldSink, touched_hours
from pipelines.lake.checkpoint.identity import Checkpoint, open_checkpoint
from pipelines.lake.contract.sentences import gap_sentence
from pipelines.lake.contract.source_gaps import find_gap
from pipelines.lake.days import parse_optional_day
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.versions import log_begins
from pipelines.lake.errors import ContractError, StoppedError, UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.places import absolute
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import is_empty
from pipelines.lake.tables import GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER
from pipelines.runtime import delta, jobs
from pipelines.runtime.contract_start import refuse_differences, refuse_gap, work_around_damage
from pipelines.runtime.replay import NOTHING_THERE, Plan, Selection, open_plan
from pipelines.runtime.restores import refuse_lost_commits


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
    silver, hourly, daily = (name.path(settings) for name in (SILVER, GOLD_HOURLY, GOLD_DAILY))
    work_around_damage(settings, (SILVER, GOLD_HOURLY, GOLD_DAILY, LEDGER))
    delta.require_table(spark, silver, "the Silver table")
    starting = _starting_version(starting_offsets, delta.current_version(spark, silver))
    # Once for this start: another generation may be made meanwhile.
    path = jobs.checkpoint_path(settings, JOB, checkpoint_path)
    if is_empty(open_storage(path)):
        _refuse_cleaned(silver, int(starting))
    delta.ensure_table(spark, HOURLY_TABLE, hourly)
    delta.ensure_table(spark, DAILY_TABLE, daily)
    refuse_differences(spark, settings, (HOURLY_TABLE, DAILY_TABLE), (SILVER, LEDGER))
    refuse_gap(settings, JOB, path)
    checkpoint = _open_checkpoint(spark, settings, path, starting_offsets or "")
    with checkpoint.lock.released_on_error():
        if checkpoint.starting and not starting_offsets:
            # Made from what the tables hold, after the old one was lost.
            starting = _starting_version(checkpoint.starting, delta.current_version(spark, silver))
        if checkpoint.is_new and (gap := find_gap(existing_table(absolute(silver)), int(starting), change_feed=True)):
            raise ContractError(gap_sentence(JOB, gap))

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
        sink = _sink(settings, checkpoint)
        writer = changes.writeStream.queryName(JOB).option("checkpointLocation", checkpoint.path)
        return jobs.start_stream(writer, sink, trigger or settings.gold.trigger, checkpoint.lock)


def replay(spark: SparkSession, settings: Settings, args: argparse.Namespace, stop: threading.Event) -> None:
    """Recompute the hours that a range of Silver's versions, or of days, touches: `{"silver_version": n}` bounds versions.

    Idempotent: Gold is a function of Silver. One that died is gone on with by the same flags; where they name no end, that is
    the version at which it was begun. Raises UsageError (versions or days that Silver does not have, a checkpoint that is
    another's); then nothing is written.
    """
    silver = SILVER.path(settings)
    delta.require_table(spark, silver, "the Silver table")
    current = delta.current_version(spark, silver)
    first = int(_starting_version(args.starting_offsets, current))
    last = int(_starting_version(args.ending_offsets, current, "--ending-offsets")) if args.ending_offsets else current
    days = Selection(
        from_date=parse_optional_day(args.from_date, "--from-date"), to_date=parse_optional_day(args.to_date, "--to-date")
    )
    days.refuse_unknown({}, "Silver")
    if first > last:
        msg = f"Version {first} to start at is after version {last} to end with; correct the offsets."
        raise UsageError(msg)
    if not days.is_bounded:
        _refuse_cleaned(silver, first)
    hours, versions, changes = _hours_again(spark, settings, first, last, days)
    if not hours:
        raise UsageError(NOTHING_THERE.format("Silver"))
    sys.stderr.write(f"replay of {len(hours):,} hours ({changes:,} rows) from {hours[0]:%F %H:00} to {hours[-1]:%F %H:00}\n")
    if args.dry_run:
        return
    if stop.is_set():
        msg = "The replay was stopped before it wrote anything; the same command does it."
        raise StoppedError(msg)
    hourly, daily = GOLD_HOURLY.path(settings), GOLD_DAILY.path(settings)
    delta.ensure_table(spark, HOURLY_TABLE, hourly)
    delta.ensure_table(spark, DAILY_TABLE, daily)
    what = json.dumps({"versions": [first, last if args.ending_offsets else None], "days": days.text()})
    checkpoint = _open_checkpoint(spark, settings, args.checkpoint_path, what)
    with checkpoint.lock:
        begun_at = open_plan(checkpoint, Plan([], changes, last)).version
        if begun_at is not None and begun_at != last:
            hours, versions, changes = _hours_again(spark, settings, first, begun_at, days)
        _sink(settings, checkpoint).publish(spark, hours, versions, changes, 0)


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


def _refuse_cleaned(silver: str, first: int) -> None:
    """Raise UsageError where Silver's log does not reach back to version `first`: its changes cannot be read."""
    begins = log_begins(silver)
    if first < begins:
        msg = (
            f"Gold would begin at version {first} of Silver, but Silver's log has the versions from {begins} on alone; run "
            "`lakehouse checkpoint rebuild gold`, which goes on where Gold stopped, or `lakehouse rebuild gold`, or give "
            "--starting-offsets with a version that is there."
        )
        raise UsageError(msg)


def _open_checkpoint(spark: SparkSession, settings: Settings, path: str | None, starting: str) -> Checkpoint:
    checkpoint = open_checkpoint(
        jobs.checkpoint_path(settings, JOB, path),
        job=JOB,
        source=delta.table_id(spark, SILVER.path(settings)),
        target=delta.table_id(spark, GOLD_HOURLY.path(settings)),
        starting=starting,
    )
    # A RESTORE is no reason to stop, since Gold can be recomputed (lakehouse rollback does it); a log that lost its end is.
    with checkpoint.lock.released_on_error():
        refuse_lost_commits(checkpoint, Ledger(settings), {str(name): name.path(settings) for name in (GOLD_HOURLY, GOLD_DAILY)})
    return checkpoint


def _sink(settings: Settings, checkpoint: Checkpoint) -> GoldSink:
    silver, hourly, daily = (name.path(settings) for name in (SILVER, GOLD_HOURLY, GOLD_DAILY))
    lease = lease_of(settings, "gold", job=JOB, run=checkpoint.generation)
    return GoldSink(silver, hourly, daily, checkpoint, Ledger(settings), lease)


def _starting_version(text: str | None, current: int, flag: str = "--starting-offsets") -> str:
    """First Silver version to read: `{"silver_version": 12}`; without it, all of them."""
    if text is None:
        return "0"
    try:
        version = json.loads(text)["silver_version"]
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= current:
        msg = f'The value of {flag} is not understood, expected {{"silver_version": n}} with n from 0 to {current}.'
        raise UsageError(msg)
    return str(version)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from the command line."""
    return jobs.run_stream(run, replay, JOB, jobs.job_parser(__doc__ or ""), argv)


if __name__ == "__main__":
    run_process(main)
