"""Gold: usage by hour, customer and endpoint, and the daily totals that billing reads."""

from __future__ import annotations

from pipelines.common.delta import Column, TableDef
from pipelines.common.tables import GOLD_DAILY, GOLD_HOURLY

LATENCY_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
"""Upper bounds (inclusive) of the latency buckets; one more bucket is open above."""

LATENCY_COLUMNS = (*(f"latency_le_{bound}" for bound in LATENCY_BOUNDS_MS), f"latency_gt_{LATENCY_BOUNDS_MS[-1]}")

TOTALS = ("event_count", "error_count", "request_bytes", "response_bytes", "late_count")
"""Measures that both tables have and that add up."""

HOURLY_KEYS = ("hour", "customer_id", "endpoint")
HOURLY_MEASURES = (*TOTALS, "distinct_api_keys", *LATENCY_COLUMNS)
DAILY_KEYS = ("day", "customer_id")
DAILY_MEASURES = (*TOTALS, "distinct_endpoints")

PROVISIONAL, FINAL = "provisional", "final"

_TOTAL_COLUMNS = (
    Column("event_count", "bigint", "Events."),
    Column("error_count", "bigint", "Events whose status_code is 400 or more."),
    Column("request_bytes", "bigint", "Sum of request_bytes."),
    Column("response_bytes", "bigint", "Sum of response_bytes."),
    Column("late_count", "bigint", "Events flagged late."),
)

HOURLY_TABLE = TableDef(
    name=GOLD_HOURLY,
    comment="API usage by hour, customer and endpoint: a pure function of Silver.",
    columns=(
        Column("hour", "timestamp", "Hour of event_timestamp, UTC."),
        Column("customer_id", "string", "Who is billed."),
        Column("endpoint", "string", "What was called."),
        *_TOTAL_COLUMNS,
        Column("distinct_api_keys", "bigint", "Distinct api_key_id."),
        *(
            Column(name, "bigint", "Events in this latency bucket (ms); buckets add up, percentiles would not.")
            for name in LATENCY_COLUMNS
        ),
        Column("_updated_at", "timestamp", "When the row last changed."),
    ),
    properties={"delta.dataSkippingStatsColumns": "hour,customer_id"},
)

DAILY_TABLE = TableDef(
    name=GOLD_DAILY,
    comment="What billing reads: totals by day and customer.",
    columns=(
        Column("day", "date", "UTC date of event_timestamp."),
        Column("customer_id", "string", "Who is billed."),
        *_TOTAL_COLUMNS,
        Column("distinct_endpoints", "bigint", "Distinct endpoint."),
        Column("billing_status", "string", "provisional, or final once the daily batch has closed the day."),
        Column("silver_version", "bigint", "Version of Silver that the row was computed from."),
        Column("_updated_at", "timestamp", "When the row last changed."),
    ),
    properties={"delta.dataSkippingStatsColumns": "day,customer_id"},
)
