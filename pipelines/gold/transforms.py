"""Silver to Gold: counts and sums of whole numbers only, so that any split of the input gives the same bits."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.gold.schema import (
    DAILY_KEYS,
    DAILY_MEASURES,
    HOURLY_KEYS,
    HOURLY_MEASURES,
    LATENCY_BOUNDS_MS,
    LATENCY_COLUMNS,
    TOTALS,
)


def build_hourly(silver: DataFrame) -> DataFrame:
    """Aggregate Silver rows by hour, customer and endpoint; first by API key too, which makes distinct keys a count."""
    by_key = silver.groupBy(F.date_trunc("hour", "event_timestamp").alias("hour"), "customer_id", "endpoint", "api_key_id").agg(
        F.count(F.lit(1)).alias("event_count"),
        _count_if(F.col("status_code") >= 400).alias("error_count"),
        F.sum("request_bytes").alias("request_bytes"),
        F.sum("response_bytes").alias("response_bytes"),
        _count_if(F.col("_is_late_arriving")).alias("late_count"),
        *_latency_counts(),
    )
    return (
        by_key.groupBy(*HOURLY_KEYS)
        .agg(
            *(F.sum(name).alias(name) for name in (*TOTALS, *LATENCY_COLUMNS)),
            F.count(F.lit(1)).alias("distinct_api_keys"),
        )
        .select(*HOURLY_KEYS, *HOURLY_MEASURES)
    )


def build_daily(hourly: DataFrame) -> DataFrame:
    """Add hourly rows up by day and customer."""
    return (
        hourly.groupBy(F.to_date("hour").alias("day"), "customer_id")
        .agg(*(F.sum(name).alias(name) for name in TOTALS), F.countDistinct("endpoint").alias("distinct_endpoints"))
        .select(*DAILY_KEYS, *DAILY_MEASURES)
    )


def _latency_counts() -> list[Column]:
    latency = F.col("response_time_ms")
    lower = (None, *LATENCY_BOUNDS_MS)
    upper = (*LATENCY_BOUNDS_MS, None)
    counts = []
    for low, high, name in zip(lower, upper, LATENCY_COLUMNS, strict=True):
        inside = F.lit(True) if low is None else latency > low
        counts.append(_count_if((inside & (latency <= high)) if high is not None else inside).alias(name))
    return counts


def _count_if(condition: Column) -> Column:
    return F.sum(F.when(condition, F.lit(1)).otherwise(F.lit(0)))
