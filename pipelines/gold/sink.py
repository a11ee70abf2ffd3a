"""Writes Gold: usage by key takes over what changed, and the hours that a batch touches are computed again and merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.increments.by_key import ByKey
from pipelines.gold.publish import day_of, days_of, hours_of, merge_daily, merge_hourly, moment
from pipelines.gold.transforms import build_by_key, build_daily, sum_hourly
from pipelines.lake import failpoints
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.lease.layers import Lease
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.logging import Log
from pipelines.lake.tables import GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, SILVER
from pipelines.runtime import delta

JOB = "gold"
_LOG = Log(JOB)


@dataclass(frozen=True)
class GoldSink:
    """Recomputes the hours that a batch of changes touches, from Silver as it is now, and merges them into Gold.

    Guarantee: Gold is a function of Silver alone; a batch that runs again, or a fresh checkpoint that reads every
    change again, ends in the same rows. Final days are left as they were billed. Usage by key, which adds up what changed, is
    compared with the recomputed hours at each batch.
    """

    by_key: ByKey
    hourly: str
    daily: str
    checkpoint: Checkpoint
    ledger: Ledger
    lease: Lease

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch and its ledger row."""
        hours, versions, rows_read = touched_hours(batch)
        if hours:
            self.publish(batch.sparkSession, hours, versions, rows_read, batch_id)

    def publish(self, spark: SparkSession, hours: Sequence[datetime], versions: list[int], rows_read: int, batch_id: int) -> None:
        """Recompute `hours` and merge them; `versions` are the first and the last of Silver's that were read."""
        with self.lease.hold():
            self._publish(spark, hours, versions, rows_read, batch_id)

    def _publish(
        self, spark: SparkSession, hours: Sequence[datetime], versions: list[int], rows_read: int, batch_id: int
    ) -> None:
        started = datetime.now(UTC)
        failpoints.reach("gold.before_by_key")
        silver_version = self.by_key.follow(spark)
        failpoints.reach("gold.after_by_key")
        table = spark.read.format("delta").option("versionAsOf", silver_version).load(self.by_key.silver)
        usage = build_by_key(in_hours(table, hours)).persist()
        try:
            counts = merge_hourly(spark, self.hourly, sum_hourly(usage), hours, started)
            failpoints.reach("gold.after_hourly")
            days = days_of(hours)
            published = spark.read.format("delta").load(self.hourly).where(F.to_date("hour").isin([day_of(day) for day in days]))
            merge_daily(spark, self.daily, build_daily(published), days, started, silver_version=silver_version)
            failpoints.reach("gold.after_daily")
            # Last: what is published does not depend on it, yet.
            self.by_key.require_same(spark, usage, hours, silver_version)
        finally:
            usage.unpersist()
        row = BatchRow(
            job=JOB,
            generation=self.checkpoint.generation,
            batch_id=batch_id,
            offsets={"silver_version": versions},
            rows_read=rows_read,
            inserted=counts.inserted,
            replaced=counts.updated,
            versions={
                str(GOLD_BY_KEY): delta.last_version(spark, self.by_key.path),
                str(GOLD_HOURLY): delta.last_version(spark, self.hourly),
                str(GOLD_DAILY): delta.last_version(spark, self.daily),
                str(SILVER): silver_version,
            },
            started_at=started,
        )
        if not self.ledger.has(JOB, row.generation, batch_id):
            self.ledger.record(row)
        failpoints.reach("gold.after_ledger")
        _LOG.info("batch written", batch=batch_id, hours=len(hours), inserted=counts.inserted, updated=counts.updated)


def touched_hours(changes: DataFrame) -> tuple[list[datetime], list[int], int]:
    """Hours that the changes lie in, first and last Silver version among them, and how many changes there are."""
    groups = (
        changes.groupBy(F.date_trunc("hour", "event_timestamp").alias("hour"))
        .agg(F.count(F.lit(1)).alias("rows"), F.min("_commit_version").alias("first"), F.max("_commit_version").alias("last"))
        .collect()
    )
    if not groups:
        return [], [], 0
    hours = sorted(group["hour"] for group in groups)
    versions = [min(group["first"] for group in groups), max(group["last"] for group in groups)]
    return hours, versions, sum(group["rows"] for group in groups)


def in_hours(silver: DataFrame, hours: Sequence[datetime]) -> DataFrame:
    """Silver rows of `hours`; the days, as literals, prune files."""
    days = days_of(hours)
    begin, end = hours_of(days[0])[0], hours_of(days[-1])[1]
    pruned = silver.where(F.col("_event_date").isin([day_of(day) for day in days])) if len(days) <= 400 else silver
    return pruned.where(F.col("event_timestamp").between(moment(begin), moment(end))).where(
        F.date_trunc("hour", "event_timestamp").isin([moment(hour) for hour in hours])
    )
