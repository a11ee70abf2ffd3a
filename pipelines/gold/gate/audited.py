"""Names the sets of rows that an audit looks at, and their columns: what an expectation may speak of. Needs no JVM."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.gold.schema import CANDIDATES_TABLE, TOTALS
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.settings import Settings
from pipelines.lake.tables import Column

SILVER_ROWS, GOLD_ROWS, CUSTOMERS, DAY = "silver", "gold", "customers", "day"

KNOWN_OF_SILVER = (
    Column("status_class", "int", "First digit of status_code: 2 for 200 to 299."),
    Column("_event_date", "date", "UTC date of event_timestamp: the day that is billed."),
    Column("_is_late_arriving", "boolean", "Took longer than `silver.late_after_seconds` from event_timestamp to Kafka."),
    Column("_arrival_delay_seconds", "double", "Kafka timestamp - event_timestamp."),
)
"""Columns of the Silver rows beside the event's fields."""

OFF = tuple(f"{name}_off" for name in TOTALS)
"""A measure in Gold's candidate, less the same measure added up from Silver by a way of its own."""

CUSTOMER_COLUMNS = (
    Column("customer_id", "string", "Who is billed."),
    Column(
        "found_in", "string", "`both`: Silver and Gold's candidate; `silver` or `gold`: there alone; `past`: closed days alone."
    ),
    Column("event_count", "bigint", "Events in the candidate; 0 where it has no row."),
    *(Column(name, "bigint", f"{name[:-4]}: the candidate less what Silver's rows add up to.") for name in OFF),
    Column("hourly_events_off", "bigint", "event_count: the candidate less the recomputed hours."),
    Column(
        "repeated_share",
        "double",
        "Share of Silver's rows that repeat another one in all but event_id, to a few hundredths; NULL for fewer than "
        "`quality.min_events` rows.",
    ),
    Column(
        "events_to_usual",
        "double",
        "Events as a multiple of the customer's own on the last closed days: 1 within their range, otherwise by how much they "
        "lie below the least or above the most; as they are, or less what all other customers grew by, whichever is nearer to 1. "
        "NULL unless the customer is large (`quality.large_customer_share`).",
    ),
    Column("bytes_per_event_to_usual", "double", "As events_to_usual, of request_bytes + response_bytes for an event."),
)

DAY_COLUMNS = (
    Column("events", "bigint", "Events in the candidate."),
    Column("silver_rows", "bigint", "Rows of the day in Silver."),
    Column("table_rows", "bigint", "Rows of all of Silver at the version that is audited; NULL where there is no ledger."),
    Column("ledger_rows", "bigint", "Rows that Silver's batches up to that version inserted, by `ops.batch_ledger`."),
    Column("ledger_rows_off", "bigint", "table_rows - ledger_rows."),
    Column("unread_records", "bigint", "Records of Bronze from before the end of the day's grace that Silver has not read."),
    Column("late_share", "double", "Share of the day's events that came late."),
    Column("dead_letter_share", "double", "Open dead letters of the day's records, among them and the day's rows of Silver."),
    Column(
        "conflict_share",
        "double",
        "Records with another payload under a known event_id, among those that the day's batches read.",
    ),
    Column(
        "gold_wrong_share",
        "double",
        "By how much Gold said something else than Silver before the batch, where no later event explains it, as a share of the "
        "day: of its events, request_bytes or response_bytes, whichever is most.",
    ),
    Column(
        "gold_wrong_customers",
        "double",
        "Share of the customers of whom Gold said so; NULL for fewer than 10 customers.",
    ),
    Column("history_days", "bigint", "Closed days that the day is compared with: at most `quality.history_days`."),
    Column(
        "events_to_usual",
        "double",
        "Events as a multiple of the usual: 1 within its range, otherwise by how much they lie below or above. The usual is "
        "the range from the median of the last closed days to the same weekday among them; without it the least to the most.",
    ),
    Column("bytes_per_event_to_usual", "double", "As events_to_usual, of request_bytes + response_bytes for an event."),
    Column("error_share_to_usual", "double", "As events_to_usual, of the share of events whose status_code is 400 or more."),
    Column("customers_to_usual", "double", "As events_to_usual, of the number of customers."),
)
"""Shares and multiples are NULL, and not judged, where the day and its history have fewer than `quality.min_events` events."""


def audited_columns(settings: Settings) -> Mapping[str, tuple[Column, ...]]:
    """Columns of each audited set of rows, by its name; raises as `read_schemas`."""
    schemas = read_schemas(settings.schemas_dir)
    docs = {field.name: field.doc for schema in schemas.versions.values() for field in schema.fields}
    fields = tuple(Column(name, kind, docs[name]) for name, kind in schemas.fields.items())
    return {
        SILVER_ROWS: (*fields, *KNOWN_OF_SILVER),
        GOLD_ROWS: CANDIDATES_TABLE.columns,
        CUSTOMERS: CUSTOMER_COLUMNS,
        DAY: DAY_COLUMNS,
    }
