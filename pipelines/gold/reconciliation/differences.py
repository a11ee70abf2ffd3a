"""Finds what differs between Gold and a recompute of Silver, and why: pure functions of DataFrames."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.gold.reconciliation.adjustments import Bill
from pipelines.gold.schema import DAILY_KEYS, DAILY_MEASURES, HOURLY_KEYS, HOURLY_MEASURES, TOTALS
from pipelines.gold.transforms import build_daily


def find_differences(
    silver: DataFrame, recomputed: DataFrame, hourly: DataFrame, daily: DataFrame, bill: Bill | None
) -> DataFrame:
    """Find what differs by hour and by day (rows as of `build_differences`); of a closed day its `bill` is compared.

    `silver`: the day's rows; `recomputed`: the hourly rows that they give; `hourly`, `daily`: Gold's. A bill has no distinct
    counts, so these are not compared.
    """
    keyed = silver.select(
        F.date_trunc("hour", "event_timestamp").alias("hour"),
        F.col("_event_date").alias("day"),
        "customer_id",
        "endpoint",
        "_processed_at",
        "_is_late_arriving",
    )
    by_hour = build_differences(
        hourly,
        recomputed,
        build_pending(keyed, hourly, HOURLY_KEYS),
        grain="hourly",
        keys=HOURLY_KEYS,
        measures=HOURLY_MEASURES,
    )
    daily, measures = (bill.rows, TOTALS) if bill else (daily, DAILY_MEASURES)
    by_day = build_differences(
        daily,
        build_daily(recomputed),
        build_pending(keyed, daily, DAILY_KEYS),
        grain="daily",
        keys=DAILY_KEYS,
        measures=measures,
    )
    return by_hour.unionByName(by_day)


def find_unexplained(found: DataFrame) -> DataFrame:
    """Rows of `found` by day and customer that no later event explains: Gold, or Silver, was wrong."""
    return found.where("grain = 'daily' AND cause IN ('extra_in_gold', 'wrong_in_gold')")


def build_differences(
    published: DataFrame, recomputed: DataFrame, pending: DataFrame, *, grain: str, keys: Sequence[str], measures: Sequence[str]
) -> DataFrame:
    """Compare by key; one row for each measure that differs: grain, key (JSON), measure, before, after, cause.

    `pending` (keys, pending_count, pending_late): Silver rows that came after Gold's row was written; where they
    explain the whole difference in events, they are its cause. A row that stands twice counts twice, as it does in a report.
    """
    joined = (
        published.groupBy(*keys)
        .agg(*(F.sum(name).alias(name) for name in measures))
        .select(*keys, F.struct(*measures).alias("p"))
        .join(recomputed.select(*keys, F.struct(*measures).alias("r")), on=list(keys), how="full_outer")
        .join(pending, on=list(keys), how="left")
        .withColumn("cause", _cause())
    )
    pairs = [
        F.when(
            ~F.col(f"p.{name}").eqNullSafe(F.col(f"r.{name}")),
            F.struct(F.lit(name).alias("measure"), F.col(f"p.{name}").alias("before"), F.col(f"r.{name}").alias("after")),
        )
        for name in measures
    ]
    return joined.select(
        F.lit(grain).alias("grain"),
        F.to_json(F.struct(*keys)).alias("key"),
        F.explode(F.array_compact(F.array(*pairs))).alias("d"),
        "cause",
    ).select("grain", "key", "d.*", "cause")


def _cause() -> SparkColumn:
    before, after = F.coalesce("p.event_count", F.lit(0)), F.coalesce("r.event_count", F.lit(0))
    pending, late = F.coalesce("pending_count", F.lit(0)), F.coalesce("pending_late", F.lit(0))
    explained = (pending > 0) & (before + pending == after)
    return (
        F.when(F.col("r").isNull(), "extra_in_gold")
        .when(explained & (late == pending), "late_events")
        .when(explained, "not_yet_aggregated")
        .otherwise("wrong_in_gold")
    )


def build_pending(silver: DataFrame, published: DataFrame, keys: Sequence[str]) -> DataFrame:
    """Count, for each key, Silver rows processed after Gold's row was (keys, pending_count, pending_late).

    `silver` has the keys as columns. A key that Gold does not have counts all its rows.
    """
    return (
        silver.join(published.select(*keys, "_updated_at"), on=list(keys), how="left")
        .where(F.col("_updated_at").isNull() | (F.col("_processed_at") > F.col("_updated_at")))
        .groupBy(*keys)
        .agg(F.count(F.lit(1)).alias("pending_count"), F.sum(F.col("_is_late_arriving").cast("bigint")).alias("pending_late"))
    )
