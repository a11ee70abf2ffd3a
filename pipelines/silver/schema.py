"""Silver: an event once; and its dead letters, a rejected record once."""

from __future__ import annotations

from pipelines.lake.event_schema import EventSchemas
from pipelines.lake.tables import BRONZE, DLQ, SILVER, Column, TableDef

_SPARK_TYPES = {"long": "bigint"}

_META = (
    Column("_is_late_arriving", "boolean", "Took longer than `silver.late_after_seconds` from event_timestamp to Kafka."),
    Column(
        "_arrival_delay_seconds",
        "double",
        "Kafka timestamp - event_timestamp; negative where the clock was ahead, NULL where there is no Kafka timestamp.",
    ),
    Column("_event_date", "date", "UTC date of event_timestamp: the day that is billed."),
    Column("_quality_flags", "array<string>", "Ids of the warning rules that the event met."),
    Column("_kafka_topic", "string", "Topic of the record that became this row."),
    Column("_kafka_partition", "int", "Partition of that record."),
    Column("_kafka_offset", "bigint", "Offset of that record."),
    Column("_kafka_timestamp", "timestamp", "Kafka's timestamp of that record; NULL where its number is no instant held."),
    Column("_processed_at", "timestamp", "When the batch that wrote the row began."),
    Column("_event_key", "bigint", "xxhash64 of event_id: the narrow key by which copies are looked for."),
    Column(
        "_kafka_timestamp_ms",
        "bigint",
        "Kafka's own number for that record's time, by which the first copy is told; NULL in rows that an older version wrote.",
    ),
)


EVENT_KEYS, EVENT_STAMPS = ("event_id",), ("_processed_at",)
"""Of Silver, whatever the schema files say."""


def silver_table(schemas: EventSchemas) -> TableDef:
    """Give the Silver table: the event's fields as the schema files say, then what the pipeline knows of them."""
    docs = {field.name: field.doc for schema in schemas.versions.values() for field in schema.fields}
    fields = tuple(Column(name, _SPARK_TYPES.get(kind, kind), docs[name]) for name, kind in schemas.fields.items())
    return TableDef(
        name=SILVER,
        comment="API usage events, one row for an event_id: the first copy by (Kafka timestamp, partition, offset).",
        columns=fields + _META,
        keys=EVENT_KEYS,
        stamps=EVENT_STAMPS,
        writer="silver",
        rebuilt_from=BRONZE,
        properties={
            "delta.enableChangeDataFeed": "true",
            "delta.dataSkippingStatsColumns": "event_timestamp,_event_date,_arrival_delay_seconds,_kafka_partition,"
            "_kafka_offset,_kafka_timestamp,_processed_at,_kafka_timestamp_ms",
        },
    )


DLQ_TABLE = TableDef(
    name=DLQ,
    comment="Records that no event could be made of, byte for byte, each once. Rows change state, they are not deleted: "
    "of closed ones the bytes go after `dlq.retention_days`.",
    columns=(
        Column("_raw_value", "binary", "Value, byte for byte; NULL once a closed row's retention is over."),
        Column("_kafka_key", "binary", "Key, byte for byte; NULL as the value."),
        Column("_kafka_headers", "array<struct<key:string,value:binary>>", "Headers; NULL as the value."),
        Column("_kafka_topic", "string", "Topic of the record."),
        Column("_kafka_partition", "int", "Partition of the record."),
        Column("_kafka_offset", "bigint", "Offset of the record."),
        Column("_kafka_timestamp", "timestamp", "Kafka's timestamp of the record; NULL where its number is no instant held."),
        Column("_quality_flags", "array<string>", "Ids of the rules that failed."),
        Column("_error_message", "string", "What is wrong, in sentences, without payload values."),
        Column("_stage", "string", "Job that rejected the record."),
        Column("_dlq_date", "date", "UTC date of the Kafka timestamp; NULL where there is none."),
        Column("_status", "string", "open, replayed (Silver has it, or a copy of its event) or discarded."),
        Column("_attempts", "int", "How often the record was tried."),
        Column("_replay_id", "string", "The replay that last tried it, or the checkpoint that read it again and took it."),
        Column("_dead_lettered_at", "timestamp", "When the batch that rejected it began."),
        Column("_last_attempt_at", "timestamp", "When it was last tried; NULL while a replay is under way."),
        Column("_closed_at", "timestamp", "When it was replayed or discarded."),
        Column("_reason", "string", "Why it was discarded, in the operator's words."),
        Column("_kafka_timestamp_ms", "bigint", "Kafka's own number for the record's time; NULL in rows of an older version."),
    ),
    keys=("_kafka_topic", "_kafka_partition", "_kafka_offset"),
    writer="silver",
    rebuilt_from=BRONZE,
    properties={"delta.dataSkippingStatsColumns": "_kafka_partition,_kafka_offset,_kafka_timestamp,_dlq_date,_status"},
)
