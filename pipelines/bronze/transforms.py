"""Kafka's columns to Bronze's; nothing is parsed, nothing is refused."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.bronze.schema import TABLE
from pipelines.runtime.kafka_columns import held_instant
from pipelines.runtime.session import instant

UNREADABLE_TIME = "Kafka's time lies before 1900, where Spark's source counts other days"
"""Raised by a row of Spark's source whose number of milliseconds can no longer be told; see `source_ms`."""
_OLDEST_SECONDS = -2_208_988_800


def source_ms() -> Column:
    """Kafka's number of milliseconds from the `timestamp` of Spark's source.

    That has been through Java's old calendar: before 1900 the number is another one, so such a row raises UNREADABLE_TIME.
    """
    is_old = F.col("timestamp") < F.timestamp_seconds(F.lit(_OLDEST_SECONDS))
    return F.when(is_old, F.raise_error(F.lit(UNREADABLE_TIME)).cast("bigint")).otherwise(F.unix_millis("timestamp"))


def build_bronze_rows(records: DataFrame, ingested_at: datetime, kafka_ms: Column | None = None) -> DataFrame:
    """Rename the Kafka source's columns; the value's bytes, empty and NULL ones too, stay as they are.

    `kafka_ms`: Kafka's number of milliseconds; from Spark's own `timestamp` unless given.
    """
    read = records.withColumn("_kafka_timestamp_ms", source_ms() if kafka_ms is None else kafka_ms)
    kafka_time, ingested = held_instant(F.col("_kafka_timestamp_ms")), instant(ingested_at)
    return read.select(
        F.col("topic").alias("_kafka_topic"),
        F.col("partition").alias("_kafka_partition"),
        F.col("offset").alias("_kafka_offset"),
        kafka_time.alias("_kafka_timestamp"),
        F.col("timestampType").alias("_kafka_timestamp_type"),
        F.col("key").alias("_kafka_key"),
        F.col("headers").alias("_kafka_headers"),
        F.col("value").alias("_raw_value"),
        F.length("value").alias("_raw_size"),
        ingested.alias("_ingested_at"),
        F.to_date(F.coalesce(kafka_time, ingested)).alias("_event_date"),
        "_kafka_timestamp_ms",
    ).select(TABLE.column_names)


def drop_known(rows: DataFrame, known: DataFrame) -> DataFrame:
    """Drop the rows whose (topic, partition, offset) `known` has."""
    return rows.join(known, on=["_kafka_topic", "_kafka_partition", "_kafka_offset"], how="left_anti")
