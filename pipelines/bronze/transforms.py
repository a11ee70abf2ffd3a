"""Kafka's columns to Bronze's; nothing is parsed, nothing is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.bronze.schema import TABLE
from pipelines.common.session import instant


def build_bronze_rows(records: DataFrame, ingested_at: datetime) -> DataFrame:
    """Rename the Kafka source's columns; the value's bytes, empty and NULL ones too, stay as they are."""
    return records.select(
        F.col("topic").alias("_kafka_topic"),
        F.col("partition").alias("_kafka_partition"),
        F.col("offset").alias("_kafka_offset"),
        F.col("timestamp").alias("_kafka_timestamp"),
        F.col("timestampType").alias("_kafka_timestamp_type"),
        F.col("key").alias("_kafka_key"),
        F.col("headers").alias("_kafka_headers"),
        F.col("value").alias("_raw_value"),
        F.length("value").alias("_raw_size"),
        instant(ingested_at).alias("_ingested_at"),
        F.to_date("timestamp").alias("_event_date"),
    ).select(TABLE.column_names)


def in_ranges(start: Mapping[int, int], end: Mapping[int, int]) -> Column:
    """Whether a row lies in one of the ranges [start, end) of its partition; literals, so that files are pruned."""
    ranges = [
        (F.col("_kafka_partition") == partition)
        & (F.col("_kafka_offset") >= start.get(partition, 0))
        & (F.col("_kafka_offset") < stop)
        for partition, stop in end.items()
    ]
    return reduce(lambda left, right: left | right, ranges, F.lit(False))


def drop_known(rows: DataFrame, known: DataFrame) -> DataFrame:
    """Drop the rows whose (topic, partition, offset) `known` has."""
    return rows.join(known, on=["_kafka_topic", "_kafka_partition", "_kafka_offset"], how="left_anti")
