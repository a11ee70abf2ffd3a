"""Bronze rows to events, dead letters, and the narrow facts by which fates are decided."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.runtime.session import instant
from pipelines.silver.facts import REJECTED, TOMBSTONE, VALID
from pipelines.silver.rules import Rule, any_failed, failed_ids, failed_sentences
from pipelines.silver.schema import DLQ_TABLE

_BYTES = ("_raw_value", "_kafka_key", "_kafka_headers")
_OFFSET_BITS = 48


def parse_events(records: DataFrame, poison: Sequence[int] = ()) -> DataFrame:
    """Read the value with `events.parse`; of the records at the coordinates `poison` nothing is read.

    Adds `event` (struct, NULL where there is none), `problem`, `detail`, `missing`, `wrong_type`, `expected`,
    `out_of_range`, `bounds`, `unknown_field` (see ParseEvent.java) and `_arrival_delay_seconds`. A tombstone gives NULL in all
    of them.
    """
    if not poison:
        parsed = records.withColumn("parsed", F.expr("events.parse(_raw_value)")).select(*records.columns, "parsed.*")
    else:
        is_poison = coordinate().isin(list(poison))
        value = F.when(~is_poison, F.col("_raw_value"))
        parsed = (
            records.withColumn("parsed", F.call_function("events.parse", value))
            .select(*records.columns, "parsed.*")
            .withColumn("problem", F.when(is_poison, F.lit("poison")).otherwise(F.col("problem")))
        )
    return parsed.withColumn("_arrival_delay_seconds", arrival_delay_seconds())


def classify(parsed: DataFrame, rejecting: list[Rule]) -> DataFrame:
    """Add `verdict`, and leave the record's bytes to the rejected ones: nobody else needs them any more."""
    rejected = any_failed(rejecting)
    verdict = F.when(F.col("_raw_value").isNull(), TOMBSTONE).when(rejected, REJECTED).otherwise(VALID)
    return parsed.withColumns({"verdict": verdict.cast("tinyint"), **{name: F.when(rejected, F.col(name)) for name in _BYTES}})


def arrival_delay_seconds() -> Column:
    """Kafka timestamp - event_timestamp; of the record's own times, so that a replay gives the same."""
    # NULL where there is no Kafka timestamp: nothing is known of the delay then.
    micros = F.unix_micros("_kafka_timestamp") - F.unix_micros("event.event_timestamp")
    return micros / F.lit(1_000_000.0)


def coordinate(prefix: str = "") -> Column:
    """Partition and offset in one long: narrow enough to broadcast many of them."""
    partition = F.col(f"{prefix}_kafka_partition").cast("bigint")
    return F.shiftleft(partition, _OFFSET_BITS).bitwiseOR(F.col(f"{prefix}_kafka_offset"))


def event_key(event_id: Column) -> Column:
    """The key that Silver stores."""
    return F.xxhash64(event_id)


def second_key(event_id: Column) -> Column:
    """A second hash, independent of the first: 128 bits together tell any two ids apart."""
    return F.xxhash64(F.lit("second"), event_id)


def payload_hash(fields: Sequence[str], prefix: str = "") -> Column:
    """Hash of what is billed; copies that differ in it are a conflict. A new event_timestamp alone is none."""
    return F.xxhash64(
        *(F.col(f"{prefix}{name}") for name in fields if name not in ("event_id", "event_timestamp", "schema_version"))
    )


def build_facts(classified: DataFrame, fields: Sequence[str]) -> DataFrame:
    """Narrow every record to 8 numbers: coordinates, times, verdict, keys and payload hash (keys 0 where not valid)."""
    event_id = F.col("event.event_id")
    return classified.select(
        F.col("_kafka_partition").alias("partition"),
        F.col("_kafka_offset").alias("offset"),
        F.col("_kafka_timestamp_ms").alias("kafka_ms"),
        F.coalesce(F.unix_micros("event.event_timestamp"), F.lit(0)).alias("event_us"),
        F.col("verdict"),
        event_key(event_id).alias("key"),
        second_key(event_id).alias("key2"),
        payload_hash(fields, "event.").alias("payload"),
    )


def build_silver_rows(
    parsed: DataFrame, warnings: list[Rule], columns: Sequence[str], *, late_after_seconds: int, processed_at: datetime
) -> DataFrame:
    """Give valid events the columns of Silver, in its order."""
    return parsed.select(
        *parsed.columns,
        "event.*",
        F.coalesce(F.col("_arrival_delay_seconds") > late_after_seconds, F.lit(False)).alias("_is_late_arriving"),
        F.to_date("event.event_timestamp").alias("_event_date"),
        failed_ids(warnings).alias("_quality_flags"),
        instant(processed_at).alias("_processed_at"),
        event_key(F.col("event.event_id")).alias("_event_key"),
    ).select(*columns)


def build_dead_letters(parsed: DataFrame, rejecting: list[Rule], *, dead_lettered_at: datetime) -> DataFrame:
    """Give rejected records the columns of the dead-letter table; the bytes stay as they are."""
    return parsed.select(
        *parsed.columns,
        failed_ids(rejecting).alias("_quality_flags"),
        failed_sentences(rejecting).alias("_error_message"),
        F.lit("silver").alias("_stage"),
        F.to_date("_kafka_timestamp").alias("_dlq_date"),
        F.lit("open").alias("_status"),
        F.lit(1).alias("_attempts"),
        F.lit(None).cast("string").alias("_replay_id"),
        instant(dead_lettered_at).alias("_dead_lettered_at"),
        instant(dead_lettered_at).alias("_last_attempt_at"),
        F.lit(None).cast("timestamp").alias("_closed_at"),
        F.lit(None).cast("string").alias("_reason"),
    ).select(DLQ_TABLE.column_names)
