"""Silver to Gold: counts and sums of whole numbers only, so that any split of the input gives the same bits."""

from __future__ import annotations

import json

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.gold.schema import (
    BY_KEY_KEYS,
    BY_KEY_MEASURES,
    DAILY_KEYS,
    DAILY_MEASURES,
    HOURLY_KEYS,
    HOURLY_MEASURES,
    LATENCY_BOUNDS_MS,
    LATENCY_COLUMNS,
    TOTALS,
)

_HOUR = "date_trunc('hour', event_timestamp)"


def _if(condition: str) -> str:
    return f"CASE WHEN {condition} THEN 1 ELSE 0 END"


def _latency_buckets() -> dict[str, str]:
    above = [f"response_time_ms > {bound}" for bound in LATENCY_BOUNDS_MS]
    within = [f"response_time_ms <= {bound}" for bound in LATENCY_BOUNDS_MS]
    bounds = [within[0], *map(" AND ".join, zip(above, within[1:], strict=False)), above[-1]]
    return dict(zip(LATENCY_COLUMNS, map(_if, bounds), strict=True))


ADDED: dict[str, str] = {
    "event_count": "1",
    "error_count": _if("status_code >= 400"),
    "request_bytes": "request_bytes",
    "response_bytes": "response_bytes",
    "late_count": _if("_is_late_arriving"),
    **_latency_buckets(),
}
"""What one event adds to each measure, as SQL over Silver's columns: all of them add up."""

DEFINITION = json.dumps({"hour": _HOUR, "keys": BY_KEY_KEYS, "added": ADDED})
"""All that Gold's measures are defined by, as a text: another text is another definition."""


def build_by_key(events: DataFrame, sign: Column | None = None) -> DataFrame:
    """Aggregate Silver rows by hour, customer, endpoint and API key; each row counts `sign` times (default: once)."""
    times = F.lit(1) if sign is None else sign
    return (
        events.groupBy(F.expr(_HOUR).alias("hour"), *BY_KEY_KEYS[1:])
        .agg(*(F.sum(F.expr(added) * times).alias(name) for name, added in ADDED.items()))
        .select(*BY_KEY_KEYS, *BY_KEY_MEASURES)
    )


def build_hourly(silver: DataFrame) -> DataFrame:
    """Aggregate Silver rows by hour, customer and endpoint."""
    return sum_hourly(build_by_key(silver))


def sum_hourly(by_key: DataFrame) -> DataFrame:
    """Add usage by API key up by hour, customer and endpoint; a key has one row, so distinct keys are a count."""
    return (
        by_key.groupBy(*HOURLY_KEYS)
        .agg(
            *(F.sum(name).alias(name) for name in BY_KEY_MEASURES),
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
