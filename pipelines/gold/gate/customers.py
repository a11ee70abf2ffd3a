"""Measures each customer of a day: the candidate against Silver, the recomputed hours, and the customer's own past."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.gold.gate.audited import CUSTOMER_COLUMNS, OFF
from pipelines.gold.gate.history import multiple_of
from pipelines.gold.gate.sources import Sources
from pipelines.gold.schema import TOTALS

_CONTENT = (
    "customer_id",
    "api_key_id",
    "endpoint",
    "event_timestamp",
    "method",
    "status_code",
    "response_time_ms",
    "request_bytes",
    "response_bytes",
    "region",
)
"""What two events with different ids that stand for one request have in common: everything."""
_ERROR = 0.04
"""Relative standard deviation of the count of what differs."""


def measure_customers(sources: Sources, closed: list[date], bills: DataFrame) -> DataFrame:
    """A row for each customer of Silver and the candidate, and for each large one of the `closed` days (their bills: `bills`)."""
    settings = sources.settings.quality
    by_key = F.col("g.customer_id").eqNullSafe(F.col("s.customer_id"))
    gold = sources.candidate.join(_hourly_events(sources.hourly), on="customer_id", how="left")
    both = gold.alias("g").join(_by_customer(sources.silver, settings.min_events).alias("s"), by_key, "full_outer")
    in_gold, in_silver = F.col("g.event_count").isNotNull(), F.col("s.event_count").isNotNull()
    now = both.select(
        F.coalesce("g.customer_id", "s.customer_id").alias("customer_id"),
        F.when(in_gold & in_silver, "both").when(in_gold, "gold").otherwise("silver").alias("found_in"),
        *(F.coalesce(f"g.{name}", F.lit(0)).alias(name) for name in TOTALS),
        *(
            (F.coalesce(f"g.{name}", F.lit(0)) - F.coalesce(f"s.{name}", F.lit(0))).alias(off)
            for name, off in zip(TOTALS, OFF, strict=True)
        ),
        (F.coalesce("g.event_count", F.lit(0)) - F.coalesce("g.hourly_events", F.lit(0))).alias("hourly_events_off"),
        "s.repeated_share",
    )
    past = _past(bills, len(closed), settings.large_customer_share, settings.min_events)
    joined = now.alias("n").join(F.broadcast(past).alias("p"), F.col("n.customer_id") == F.col("p.customer_id"), "full_outer")
    joined = joined.crossJoin(F.broadcast(sources.candidate.agg(F.sum("event_count").alias("all_events"))))
    counts = ("event_count", *OFF, "hourly_events_off")
    events = F.coalesce("n.event_count", F.lit(0))
    least, most = F.col("p.least_events"), F.col("p.most_events")
    # A day on which all use more is no customer's own: what the others grew by is taken off, unless that makes it odder.
    others = F.coalesce("all_events", F.lit(0)) - events
    grown = F.when((F.col("p.others") >= settings.min_events) & (others > 0), others / F.col("p.others")).otherwise(1.0)
    per_event = F.try_divide(F.col("n.request_bytes") + F.col("n.response_bytes"), "n.event_count")
    measured = joined.select(
        F.coalesce("n.customer_id", "p.customer_id").alias("customer_id"),
        F.coalesce("n.found_in", F.lit("past")).alias("found_in"),
        *(F.coalesce(f"n.{name}", F.lit(0)).alias(name) for name in counts),
        "n.repeated_share",
        _nearer_to_one(multiple_of(events, least, most), multiple_of(events / grown, least, most)).alias("events_to_usual"),
        F.when(events >= settings.min_events, multiple_of(per_event, F.col("p.least_bytes"), F.col("p.most_bytes"))).alias(
            "bytes_per_event_to_usual"
        ),
    )
    return measured.select(*(F.col(column.name).cast(column.type) for column in CUSTOMER_COLUMNS))


def _by_customer(silver: DataFrame, min_events: int) -> DataFrame:
    """TOTALS of Silver's rows by a way of its own (no hours, no keys), and the share of rows that repeat another one."""
    rows = F.count(F.lit(1))
    # An exact count would shuffle every row; this one is off by a few hundredths, and a request sent twice shows as a half.
    repeated = F.greatest(F.lit(0.0), 1 - F.approx_count_distinct(F.xxhash64(*_CONTENT), _ERROR) / rows)
    return silver.groupBy("customer_id").agg(
        rows.alias("event_count"),
        F.count_if(F.col("status_code") >= 400).alias("error_count"),
        F.sum("request_bytes").alias("request_bytes"),
        F.sum("response_bytes").alias("response_bytes"),
        F.count_if("_is_late_arriving").alias("late_count"),
        F.when(rows >= min_events, repeated).alias("repeated_share"),
    )


def _hourly_events(hourly: DataFrame) -> DataFrame:
    return hourly.groupBy("customer_id").agg(F.sum("event_count").alias("hourly_events"))


def _past(bills: DataFrame, days: int, large_share: float, min_events: int) -> DataFrame:
    """Large customers of the closed days: least and most events a day, the mean of all others, least and most bytes an event.

    On a day without a row the customer had no event, which is why `days` are counted and not rows.
    """
    total = bills.agg(F.sum("event_count").alias("total"))
    by_customer = bills.groupBy("customer_id").agg(
        F.sum("event_count").alias("events"),
        F.min("event_count").alias("least"),
        F.max("event_count").alias("most_events"),
        F.count(F.lit(1)).alias("days"),
        F.min(F.when(F.col("event_count") > 0, _bytes() / F.col("event_count"))).alias("least_bytes"),
        F.max(F.when(F.col("event_count") > 0, _bytes() / F.col("event_count"))).alias("most_bytes"),
    )
    mean = F.col("events") / F.lit(max(days, 1))
    large = (F.col("events") >= F.lit(large_share) * F.col("total")) & (mean >= min_events)
    return (
        by_customer.crossJoin(total)
        .where(large)
        .withColumn("others", (F.col("total") - F.col("events")) / F.lit(max(days, 1)))
        .withColumn("least_events", F.when(F.col("days") == days, F.col("least")).otherwise(F.lit(0)))
    )


def _nearer_to_one(first: Column, second: Column) -> Column:
    def distance(figure: Column) -> Column:
        return F.when(figure <= 0, float("inf")).when(figure < 1, 1 / figure).otherwise(figure)

    return F.when(distance(first) <= distance(second), first).otherwise(second)


def _bytes() -> Column:
    return F.col("request_bytes") + F.col("response_bytes")
