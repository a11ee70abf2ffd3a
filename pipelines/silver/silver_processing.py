"""Silver job: Bronze -> `silver.api_usage_events` and its dead letters; each Bronze record ends with one fate."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from pipelines.common import delta, jobs
from pipelines.common.checkpoints import open_checkpoint
from pipelines.common.event_schema import read_schemas
from pipelines.common.ledger import Ledger
from pipelines.common.settings import Settings
from pipelines.common.tables import BRONZE, DLQ, SILVER
from pipelines.silver.lookup import DeadLetterLookup, SilverLookup
from pipelines.silver.schema import DLQ_TABLE, silver_table
from pipelines.silver.sink import JOB, SilverSink

_RECORD = ["_raw_value", "_kafka_key", "_kafka_headers", "_kafka_topic", "_kafka_partition", "_kafka_offset", "_kafka_timestamp"]


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    checkpoint_path: str | None = None,
    trigger: str | None = None,
    starting_offsets: str | None = None,
) -> StreamingQuery:
    """Start the stream.

    Raises UsageError (no Bronze table, wrong offsets), CheckpointError; then nothing is written.
    """
    starting = jobs.parse_offsets(starting_offsets)
    bronze, silver, dlq = BRONZE.path(settings), SILVER.path(settings), DLQ.path(settings)
    delta.require_table(spark, bronze, "the Bronze table")
    schemas = read_schemas(settings.schemas_dir)
    table = silver_table(schemas)
    delta.ensure_table(spark, table, silver)
    delta.ensure_columns(spark, table, silver)
    delta.ensure_table(spark, DLQ_TABLE, dlq)
    delta.ensure_columns(spark, DLQ_TABLE, dlq)
    checkpoint = open_checkpoint(
        spark,
        jobs.checkpoint_path(settings, JOB, checkpoint_path),
        job=JOB,
        source=delta.table_id(spark, bronze),
        target=delta.table_id(spark, silver),
        starting=starting_offsets or "",
    )

    records = spark.readStream.format("delta").option("maxBytesPerTrigger", settings.silver.max_bytes_per_trigger).load(bronze)
    for partition, offset in (starting or {}).items():
        records = records.where((F.col("_kafka_partition") != partition) | (F.col("_kafka_offset") >= offset))
    # The watermark says how far event time has come; it never decides to drop, and a wrong clock does not push it.
    event_time = F.least(F.expr("events.time(_raw_value)"), F.unix_micros("_kafka_timestamp"))
    records = (
        records.select(*_RECORD, F.timestamp_micros(event_time).alias("_watermark_time"))
        .withWatermark("_watermark_time", f"{settings.silver.late_after_seconds} seconds")
        .drop("_watermark_time")
    )
    sink = SilverSink(
        silver=silver,
        dlq=dlq,
        checkpoint=checkpoint,
        ledger=Ledger(settings),
        settings=settings.silver,
        schemas=schemas,
        lookup=SilverLookup(
            silver,
            list(schemas.fields),
            window_us=settings.silver.dedup_window_hours * 3_600_000_000,
            skew_us=settings.silver.skew_after_seconds * 1_000_000,
        ),
        dead_letters=DeadLetterLookup(dlq),
    )
    writer = records.writeStream.queryName(JOB).option("checkpointLocation", checkpoint.path).foreachBatch(sink)
    return jobs.set_trigger(writer, trigger or settings.silver.trigger).start()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from the command line."""
    return jobs.run_stream(run, JOB, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
