"""Fills Silver with rows of the past, so that a bench can ask what a full table costs.

python -m benchmarks.history --config FILE --rows N --days D [--end TIME]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.lake.event_schema import EventSchemas, read_schemas
from pipelines.lake.process import run_process
from pipelines.lake.settings_sources import process_settings
from pipelines.lake.tables import SILVER
from pipelines.runtime import delta
from pipelines.runtime.session import build_session
from pipelines.silver.schema import silver_table
from pipelines.silver.transforms import event_key

_ROWS_PER_FILE = 50_000
_DAY_US = 86_400_000_000
_OFFSET = 1_000_000_000
"""Offsets of the made-up records begin here, beyond those of the bench's topic."""


def build_history(spark: SparkSession, schemas: EventSchemas, *, rows: int, days: float, end: datetime) -> DataFrame:
    """Rows of Silver, evenly spread over the `days` before `end`, each 40 ms to 1 s on its way, in order of time."""
    step = int(days * _DAY_US / rows)
    start = int(end.timestamp() * 1_000_000) - step * rows
    kafka_us = F.lit(start) + F.col("id") * step
    delay_us = F.lit(40_000) + F.pmod(F.hash("id"), F.lit(960_000))
    values = {
        "event_id": F.concat_ws("-", F.lit("history"), F.hex(F.xxhash64("id")), F.col("id").cast("string")),
        "event_timestamp": F.timestamp_micros(kafka_us - delay_us),
        "customer_id": F.format_string("cust-%06d", F.pmod(F.hash("id", F.lit(1)), F.lit(1000))),
        "api_key_id": F.format_string("key-%06d", F.pmod(F.hash("id", F.lit(2)), F.lit(3000))),
        "endpoint": F.format_string("/v1/things/%d", F.pmod(F.hash("id", F.lit(3)), F.lit(40))),
        "method": F.lit("GET"),
        "status_code": F.lit(200),
        "response_time_ms": F.pmod(F.hash("id", F.lit(4)), F.lit(5000)) / 10.0,
        "request_bytes": F.pmod(F.hash("id", F.lit(5)), F.lit(2000)),
        "response_bytes": F.pmod(F.hash("id", F.lit(6)), F.lit(90_000)),
        "region": F.lit("eu-central-1"),
        "schema_version": F.lit(next(iter(schemas.versions))),
        "_is_late_arriving": F.lit(False),
        "_arrival_delay_seconds": delay_us / 1_000_000.0,
        "_event_date": F.to_date(F.timestamp_micros(kafka_us - delay_us)),
        "_quality_flags": F.array().cast("array<string>"),
        "_kafka_topic": F.lit("history"),
        "_kafka_partition": F.lit(0),
        "_kafka_offset": F.col("id") + _OFFSET,
        "_kafka_timestamp": F.timestamp_micros(kafka_us),
        "_kafka_timestamp_ms": F.floor(kafka_us / 1000),
        "_processed_at": F.timestamp_micros(kafka_us + 2_000_000),
    }
    table = spark.range(0, rows, 1, max(1, rows // _ROWS_PER_FILE))
    columns = silver_table(schemas).columns
    made = table.select(
        *(values[column.name].cast(column.type).alias(column.name) for column in columns if column.name in values)
    )
    return made.withColumn("_event_key", event_key(F.col("event_id"))).select([column.name for column in columns])


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the Silver table of the settings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--days", type=float, required=True)
    parser.add_argument("--end", type=datetime.fromisoformat, default=datetime.now(UTC))
    args = parser.parse_args(argv)
    settings = process_settings(args.config)
    spark = build_session(settings, "bench history")
    schemas = read_schemas(settings.schemas_dir)
    path = SILVER.path(settings)
    delta.ensure_table(spark, silver_table(schemas), path)
    rows = build_history(spark, schemas, rows=args.rows, days=args.days, end=args.end)
    rows.write.format("delta").mode("append").save(path)
    spark.stop()
    return 0


if __name__ == "__main__":
    run_process(main)
