"""A lake in `tmp_path` whose Bronze is written by hand: what Silver and Gold make of it is read back without Spark."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from pipelines.bronze.schema import TABLE
from pipelines.gold import gold_aggregation
from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, LEDGER, TableName
from pipelines.silver import silver_processing

TOPIC = "api-usage-events"
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
Row = dict[str, Any]

_TIME = pa.timestamp("us", tz="UTC")
OLDER = ("_kafka_timestamp_ms",)
"""What rows of an older version lack."""
BRONZE_SCHEMA = arrow_schema(TABLE, without=OLDER)


def event(**changes: Any) -> Row:
    """A valid event of `T0`; a change to `...` leaves the field out."""
    fields: Row = {
        "event_id": "e1",
        "event_timestamp": "2026-01-28T10:00:00Z",
        "customer_id": "cust-1",
        "api_key_id": "key-1",
        "endpoint": "/v1/orders",
        "method": "GET",
        "status_code": 200,
        "response_time_ms": 12.5,
        "request_bytes": 100,
        "response_bytes": 2000,
        "region": "eu-west-1",
        "schema_version": "1.0",
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not ...}


def record(value: bytes | Row | None, offset: int, *, partition: int = 0, at: datetime | None = None) -> Row:
    """A Bronze row; by default it came to Kafka a minute after `T0`."""
    raw = json.dumps(value, ensure_ascii=False).encode() if isinstance(value, dict) else value
    at = at or T0 + timedelta(minutes=1)
    return {
        "_kafka_topic": TOPIC,
        "_kafka_partition": partition,
        "_kafka_offset": offset,
        "_kafka_timestamp": at,
        "_kafka_timestamp_type": 0,
        "_kafka_key": b"\x00key",
        "_kafka_headers": [{"key": "h", "value": b"\xff"}],
        "_raw_value": raw,
        "_raw_size": None if raw is None else len(raw),
        "_ingested_at": T0,
        "_event_date": at.date(),
    }


@dataclass
class Lake:
    """A lake's settings, and what a test does with it."""

    spark: SparkSession
    folder: Path
    changes: Row = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        tree = {
            "lake.root": str(self.folder / "lake"),
            "lake.state_dir": str(self.folder),
            "lake.checkpoints": str(self.folder / "checkpoints"),
            "schemas_dir": str(PROJECT / "conf/schemas/api_usage_events"),
        }
        return load_settings(None, environ={}, overrides={**tree, **self.changes})

    def path(self, table: TableName) -> str:
        return table.path(self.settings)

    def append(self, *records: Row) -> None:
        """Add one commit to Bronze."""
        Path(self.path(BRONZE)).mkdir(parents=True, exist_ok=True)
        write_deltalake(self.path(BRONZE), pa.Table.from_pylist(list(records), BRONZE_SCHEMA), mode="append", schema_mode="merge")

    def run_silver(self, checkpoint: str = "g1") -> None:
        """Run Silver to the end of Bronze."""
        path = str(self.folder / "checkpoints" / "silver" / checkpoint)
        self._finish(silver_processing.run(self.spark, self.settings, checkpoint_path=path, trigger="available-now"))

    def run_gold(self, checkpoint: str = "g1") -> None:
        """Run Gold to the end of Silver's change feed."""
        path = str(self.folder / "checkpoints" / "gold" / checkpoint)
        self._finish(gold_aggregation.run(self.spark, self.settings, checkpoint_path=path, trigger="available-now"))

    @staticmethod
    def _finish(query: Any) -> None:
        try:
            query.awaitTermination()
        finally:
            query.stop()

    def rows(self, table: TableName, *columns: str, without: Sequence[str] = ()) -> list[Row]:
        """The table's rows in the order of their text, read without Spark."""
        wanted = list(columns) or None
        rows: list[Row] = DeltaTable(self.path(table)).to_pyarrow_table(columns=wanted).to_pylist()
        return sorted(({name: row[name] for name in row if name not in without} for row in rows), key=repr)

    def version(self, table: TableName) -> int:
        return DeltaTable(self.path(table)).version()

    def gold(self) -> list[list[Row]]:
        """Gold's content without what says when it was written."""
        return [self.rows(table, without=("_updated_at", "silver_version")) for table in (GOLD_HOURLY, GOLD_DAILY, GOLD_BY_KEY)]

    def counts(self, job: str = "silver") -> Row:
        """The ledger's counts added up, without zeros."""
        names = "rows_read inserted replaced duplicate conflict already_present dead_lettered tombstone late".split()
        rows = [row for row in self.rows(LEDGER) if row["job"] == job]
        totals = {name: sum(row[name] for row in rows) for name in names}
        return {name: total for name, total in totals.items() if total}


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(spark, tmp_path)


@pytest.fixture(scope="session")
def make_event() -> Callable[..., Row]:
    """`event`, for tests: this file cannot be imported."""
    return event


@pytest.fixture(scope="session")
def bronze_schema() -> pa.Schema:
    """`BRONZE_SCHEMA`, for tests: this file cannot be imported."""
    return BRONZE_SCHEMA


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Row]:
    """`record`, for tests: this file cannot be imported."""
    return record
