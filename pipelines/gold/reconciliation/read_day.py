"""Reads what Silver and Gold hold of a day, Silver at one version, and the bill if the day is closed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.paths import Paths
from pipelines.gold.publish import day_of, hours_of, moment
from pipelines.gold.reconciliation.adjustments import Bill, read_bill
from pipelines.gold.schema import FINAL
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
