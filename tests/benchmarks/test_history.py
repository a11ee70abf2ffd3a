"""The made-up past has every column of Silver, whatever was added to the table since."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import SparkSession

from benchmarks.history import build_history
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.resources import PROJECT
from pipelines.silver.schema import silver_table


def test_history_has_rows_of_silver(spark: SparkSession) -> None:
    schemas = read_schemas(str(PROJECT / "conf/schemas/api_usage_events"))
    end = datetime(2026, 1, 29, tzinfo=UTC)
    rows = build_history(spark, schemas, rows=48, days=1, end=end)

    columns = silver_table(schemas).columns
    assert [(name, kind) for name, kind in rows.dtypes] == [(column.name, column.type) for column in columns]
    found = rows.select("_event_date", "_kafka_timestamp_ms").collect()
    assert {str(row["_event_date"]) for row in found} <= {"2026-01-27", "2026-01-28"}
    assert max(row["_kafka_timestamp_ms"] for row in found) < end.timestamp() * 1000
