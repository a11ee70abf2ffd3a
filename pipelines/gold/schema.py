"""Gold: usage by hour, customer and endpoint, and the daily totals that billing reads."""

from __future__ import annotations

from pipelines.lake.tables import (
    ADJUSTMENTS,
    CANDIDATES,
    GOLD_BY_KEY,
    GOLD_DAILY,
    GOLD_HOURLY,
    RECONCILIATION,
    SILVER,
    Column,
    TableDef,
)

LATENCY_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
"""Upper bounds (inclusive) of the latency buckets; one more bucket is open above."""

LATENCY_COLUMNS = (*(f"latency_le_{bound}" for bound in LATENCY_BOUNDS_MS), f"latency_gt_{LATENCY_BOUNDS_MS[-1]}")

TOTALS = ("event_count", "error_count", "request_bytes", "response_bytes", "late_count")
"""Measures that each table of usage has, and that add up."""

HOURLY_KEYS = ("hour", "customer_id", "endpoint")
BY_KEY_KEYS = (*HOURLY_KEYS, "api_key_id")
BY_KEY_MEASURES = (*TOTALS, *LATENCY_COLUMNS)
HOURLY_MEASURES = (*TOTALS, "distinct_api_keys", *LATENCY_COLUMNS)
DAILY_KEYS = ("day", "customer_id")
DAILY_MEASURES = (*TOTALS, "distinct_endpoints")

PROVISIONAL, FINAL = "provisional", "final"

LATE, REPLAYED, CORRECTED = "late", "replayed", "corrected"
"""Why a closed day's bill is adjusted."""

_HOURLY_KEY_COLUMNS = (
    Column("hour", "timestamp", "Hour of event_timestamp, UTC."),
    Column("customer_id", "string", "Who is billed."),
    Column("endpoint", "string", "What was called."),
)
_TOTAL_COLUMNS = (
    Column("event_count", "bigint", "Events."),
    Column("error_count", "bigint", "Events whose status_code is 400 or more."),
    Column("request_bytes", "bigint", "Sum of request_bytes."),
    Column("response_bytes", "bigint", "Sum of response_bytes."),
    Column("late_count", "bigint", "Events flagged late."),
)

BY_KEY_TABLE = TableDef(
    name=GOLD_BY_KEY,
    comment="API usage by hour, customer, endpoint and API key; it carries the version of Silver that it stands for.",
    columns=(
        *_HOURLY_KEY_COLUMNS,
        Column("api_key_id", "string", "Id of the key that was used."),
        *_TOTAL_COLUMNS,
        *(Column(name, "bigint", "Events in this latency bucket (ms).") for name in LATENCY_COLUMNS),
    ),
    keys=BY_KEY_KEYS,
    writer="gold",
    rebuilt_from=SILVER,
    properties={"delta.dataSkippingStatsColumns": "hour,customer_id"},
)

HOURLY_TABLE = TableDef(
    name=GOLD_HOURLY,
    comment="API usage by hour, customer and endpoint: a pure function of Silver.",
    columns=(
        *_HOURLY_KEY_COLUMNS,
        *_TOTAL_COLUMNS,
        Column("distinct_api_keys", "bigint", "Distinct api_key_id."),
        *(
            Column(name, "bigint", "Events in this latency bucket (ms); buckets add up, percentiles would not.")
            for name in LATENCY_COLUMNS
        ),
        Column("_updated_at", "timestamp", "When the row last changed."),
    ),
    keys=HOURLY_KEYS,
    stamps=("_updated_at",),
    writer="gold",
    rebuilt_from=SILVER,
    properties={"delta.dataSkippingStatsColumns": "hour,customer_id"},
)

DAILY_TABLE = TableDef(
    name=GOLD_DAILY,
    comment="Totals by day and customer. Billing reads the view gold.bill: the final rows here and their adjustments.",
    columns=(
        Column("day", "date", "UTC date of event_timestamp."),
        Column("customer_id", "string", "Who is billed."),
        *_TOTAL_COLUMNS,
        Column("distinct_endpoints", "bigint", "Distinct endpoint; of a closed day as it was when it was closed."),
        Column("billing_status", "string", "provisional, or final once the daily batch has closed the day."),
        Column("silver_version", "bigint", "Version of Silver that the row was computed from."),
        Column("_updated_at", "timestamp", "When the row last changed."),
    ),
    keys=DAILY_KEYS,
    stamps=("_updated_at", "silver_version"),
    writer="gold",
    rebuilt_from=SILVER,
    properties={"delta.dataSkippingStatsColumns": "day,customer_id"},
)

CANDIDATES_TABLE = TableDef(
    name=CANDIDATES,
    comment="Days that the daily batch has computed and not published: what the gate audits, and what it refused. A day has the "
    "rows of one run; they leave once the day is published. Billing never reads them.",
    columns=(
        Column("day", "date", "UTC date of event_timestamp."),
        Column("customer_id", "string", "Who would be billed."),
        *_TOTAL_COLUMNS,
        Column("distinct_endpoints", "bigint", "Distinct endpoint."),
        Column("silver_version", "bigint", "Version of Silver that the row was computed from."),
        Column("run_id", "string", "The run of the daily batch, as in ops.reconciliation and ops.quality_results."),
        Column("created_at", "timestamp", "When that run began."),
    ),
    keys=DAILY_KEYS,
    stamps=("run_id", "created_at"),
    writer="the daily batch",
    rebuilt_from=SILVER,
    properties={"delta.dataSkippingStatsColumns": "day,customer_id"},
)

ADJUSTMENTS_TABLE = TableDef(
    name=ADJUSTMENTS,
    comment="What came after a day was closed: the final daily row plus its adjustments is what Silver gives now. Rows are "
    "only added. Distinct counts do not add up, so there are none: `distinct_endpoints` stays as it was when the day was closed.",
    columns=(
        Column("adjustment_id", "string", "SHA-256 of (day, customer_id, sequence, cause): a repeated booking adds nothing."),
        Column("day", "date", "The closed day."),
        Column("customer_id", "string", "Who is billed."),
        Column("sequence", "int", "Number of the booking for the day, from 1."),
        *(
            Column(column.name, column.type, f"{column.doc[:-1]} to add to the bill; may be negative.")
            for column in _TOTAL_COLUMNS
        ),
        Column(
            "cause",
            "string",
            "late: events over `silver.late_after_seconds` late; replayed: others that Silver had only after the bill (backlog, "
            "replay, mended dead letter); corrected: rows changed or went, alone or beside new ones.",
        ),
        Column("silver_version_from", "bigint", "Version of Silver that the bill and earlier adjustments stand for."),
        Column("silver_version_to", "bigint", "Version of Silver that they stand for with this one."),
        Column("run_id", "string", "The run of the daily batch, as in ops.reconciliation."),
        Column("created_at", "timestamp", "When that run began."),
    ),
    keys=("adjustment_id",),
    stamps=("created_at",),
    writer="the daily batch",
    properties={"delta.appendOnly": "true", "delta.dataSkippingStatsColumns": "day,customer_id"},
)

RECONCILIATION_TABLE = TableDef(
    name=RECONCILIATION,
    comment="What each run of the daily batch found: a row for each difference, and one of grain `day` for the run.",
    columns=(
        Column("run_id", "string", "The run."),
        Column("day", "date", "The day that was reconciled."),
        Column("reconciled_at", "timestamp", "When the run began."),
        Column("silver_version", "bigint", "Version of Silver that was the truth."),
        Column("gold_version_before", "bigint", "Version of the Gold table that was compared."),
        Column("gold_version_after", "bigint", "Version after the repair; NULL in rows that were written before it."),
        Column("grain", "string", "hourly or daily: a difference; day: the run as a whole."),
        Column("key", "string", "Key of the row that differed, as JSON; NULL for the run."),
        Column("measure", "string", "What differed."),
        Column(
            "before",
            "bigint",
            "Value in Gold, of a closed day with its adjustments; NULL where there was no row.",
        ),
        Column("after", "bigint", "Value recomputed; NULL where there is no row."),
        Column("cause", "string", "late_events, not_yet_aggregated, extra_in_gold, wrong_in_gold, or none."),
        Column("billing_status", "string", "Status of the day after the run."),
    ),
    keys=("run_id", "grain", "key", "measure"),
    writer="the daily batch",
)
