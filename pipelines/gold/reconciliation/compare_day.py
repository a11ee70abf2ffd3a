"""Reads what Silver and Gold hold of a day, recomputes Gold from Silver at one version, and finds what differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.gate.sources import Sources
from pipelines.gold.paths import Paths
from pipelines.gold.publish import day_of, hours_of, moment
from pipelines.gold.reconciliation.adjustments import Bill, read_bill
from pipelines.gold.reconciliation.differences import find_differences, find_unexplained
from pipelines.gold.schema import FINAL
from pipelines.gold.transforms import build_daily, build_hourly
from pipelines.lake.settings import Settings
from pipelines.runtime import delta


@dataclass(frozen=True)
class DayRead:
    """A day's rows of Silver, at `silver_version`, and of Gold's two tables; `bill` is None while the day is open.

    `gold_version`: of the hourly table, before anything is repaired.
    """

    silver_version: int
    gold_version: int
    silver: DataFrame
    hourly: DataFrame
    daily: DataFrame
    bill: Bill | None


@dataclass(frozen=True)
class ComparedDay:
    """A day as read, its hours recomputed from Silver, and the differences (see `find_differences`)."""

    spark: SparkSession
    paths: Paths
    day: date
    read: DayRead
    hourly: DataFrame
    differences: DataFrame

    @property
    def daily(self) -> DataFrame:
        """The day's rows, added up from the recomputed hours."""
        return build_daily(self.hourly)

    def sources(self, settings: Settings, candidate: DataFrame) -> Sources:
        """What an audit of `candidate`, the day's rows as they would be billed, reads."""
        return Sources(
            spark=self.spark,
            settings=settings,
            day=self.day,
            silver_version=self.read.silver_version,
            silver=self.read.silver,
            hourly=self.hourly,
            candidate=candidate,
            wrong=find_unexplained(self.differences),
            paths=self.paths,
        )


@contextmanager
def compare_day(spark: SparkSession, paths: Paths, day: date) -> Iterator[ComparedDay]:
    """Compare `day` with a recompute; hours and differences are kept on the executors until the block ends."""
    read = read_day(spark, paths, day)
    hourly = build_hourly(read.silver).persist()
    differences = find_differences(read.silver, hourly, read.hourly, read.daily, read.bill).persist()
    try:
        yield ComparedDay(spark, paths, day, read, hourly, differences)
    finally:
        differences.unpersist()
        hourly.unpersist()


def read_day(spark: SparkSession, paths: Paths, day: date) -> DayRead:
    """Read `day`; the frames are computed where they are used, but for whether the day is closed, and its bill."""
    silver_version = delta.current_version(spark, paths.silver)
    begin, end = (moment(at) for at in hours_of(day))
    silver = (
        spark.read.format("delta")
        .option("versionAsOf", silver_version)
        .load(paths.silver)
        .where(F.col("_event_date") == day_of(day))
        .where((F.col("event_timestamp") >= begin) & (F.col("event_timestamp") < end))
    )
    gold_version = delta.current_version(spark, paths.hourly)
    hourly = spark.read.format("delta").load(paths.hourly).where((F.col("hour") >= begin) & (F.col("hour") < end))
    daily = spark.read.format("delta").load(paths.daily).where(F.col("day") == day_of(day))
    is_closed = daily.where(F.col("billing_status") == FINAL).limit(1).count() > 0
    bill = read_bill(spark, daily, paths.adjustments, paths.silver, day) if is_closed else None
    return DayRead(silver_version, gold_version, silver, hourly, daily, bill)
