"""Bronze: a Kafka record as it came, once for each (topic, partition, offset)."""

from __future__ import annotations

from pipelines.lake.tables import BRONZE, Column, TableDef

TABLE = TableDef(
    name=BRONZE,
    comment="Kafka records as they came: immutable, each (topic, partition, offset) once.",
    columns=(
        Column("_kafka_topic", "string", "Topic of the record."),
        Column("_kafka_partition", "int", "Partition of the record."),
        Column("_kafka_offset", "bigint", "Offset of the record in its partition."),
        Column("_kafka_timestamp", "timestamp", "Kafka's timestamp of the record; NULL where its number is no instant held."),
        Column("_kafka_timestamp_type", "int", "0: set by the producer, 1: set by the broker."),
        Column("_kafka_key", "binary", "Key, byte for byte; NULL where there is none."),
        Column("_kafka_headers", "array<struct<key:string,value:binary>>", "Headers; NULL where there are none."),
        Column("_raw_value", "binary", "Value, byte for byte; NULL for a tombstone."),
        Column("_raw_size", "int", "Bytes of the value; NULL for a tombstone."),
        Column("_ingested_at", "timestamp", "When the batch that read the record began."),
        Column("_event_date", "date", "UTC date of the Kafka timestamp, or where that is NULL of `_ingested_at`."),
        Column(
            "_kafka_timestamp_ms",
            "bigint",
            "Kafka's own number for the record's time, milliseconds since 1970; NULL in rows of an older version.",
        ),
    ),
    keys=("_kafka_topic", "_kafka_partition", "_kafka_offset"),
    stamps=("_ingested_at",),
    writer="bronze",
    properties={
        "delta.appendOnly": "true",
        # What range lookups use; statistics of raw bytes would cost time on every file and prune nothing.
        "delta.dataSkippingStatsColumns": "_kafka_partition,_kafka_offset,_kafka_timestamp,_ingested_at,_event_date",
    },
)
