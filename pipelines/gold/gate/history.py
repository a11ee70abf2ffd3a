"""Compares a figure with the same one of the last closed days: 1 within their range, otherwise by how much it lies outside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from statistics import median

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.publish import day_of
from pipelines.gold.schema import FINAL
from pipelines.lake.views import BILL
from pipelines.runtime import delta


def has_history(spark: SparkSession, daily_path: str, day: date) -> bool:
    """Whether a day before `day` is closed."""
    return _closed_before(spark, daily_path, day).limit(1).count() > 0


def read_history(
    spark: SparkSession, daily_path: str, adjustments_path: str, day: date, days: int
) -> tuple[list[date], DataFrame]:
    """The last closed days before `day`, at most `days`, and their bills with adjustments (day, customer_id, TOTALS)."""
    daily = spark.read.format("delta").load(daily_path)
    closed = _closed_before(spark, daily_path, day).select("day").distinct()
    found = [row[0] for row in closed.orderBy(F.desc("day")).limit(days).collect()]
    wanted = F.col("day").isin([day_of(one) for one in found]) if found else F.lit(False)
    # Before the first run of the batch there are none.
    has_adjustments = delta.is_delta_table(spark, adjustments_path)
    adjustments = spark.read.format("delta").load(adjustments_path) if has_adjustments else daily.where(F.lit(False))
    bills = spark.sql(BILL.query, daily=daily.where(wanted), adjustments=adjustments.where(wanted))
    # Asked more than once; a row for each customer and day, kept on the executors.
    return found, bills.localCheckpoint()


def _closed_before(spark: SparkSession, daily_path: str, day: date) -> DataFrame:
    daily = spark.read.format("delta").load(daily_path)
    return daily.where((F.col("billing_status") == FINAL) & (F.col("day") < day_of(day)))


def usual_of_day(day: date, past: Mapping[date, float]) -> tuple[float, float] | None:
    """Range in which a figure of `day` is usual, of the figures of `past` days; None where there are none.

    A week has its own shape: from the median to the same weekday, where that is among the days; otherwise the whole range.
    """
    if not past:
        return None
    same_weekday = [figure for one, figure in past.items() if one.weekday() == day.weekday()]
    ends = [median(past.values()), *same_weekday] if same_weekday else list(past.values())
    return min(ends), max(ends)


def multiple(figure: float, usual: tuple[float, float] | None) -> float | None:
    """By how much `figure` lies below or above the range `usual`, as a multiple of its nearer end; None where there is none.

    A range that begins at 0 has nothing below it; one that ends there tells nothing.
    """
    if usual is None or usual[1] <= 0:
        return None
    low, high = usual
    return figure / low if figure < low else figure / high if figure > high else 1.0


def multiple_of(figure: Column, low: Column, high: Column) -> Column:
    """`multiple` by row."""
    outside = F.when(figure < low, figure / low).when(figure > high, figure / high).otherwise(F.lit(1.0))
    return F.when(high > 0, outside).cast("double")
