"""A Silver table and Gold tables made by hand, for the daily batch; a folder's conftest.py imports the fixture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from pipelines.gold.paths import Paths
from pipelines.gold.publish import merge_daily, merge_hourly
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.gold.schema import DAILY_TABLE, HOURLY_TABLE
from pipelines.gold.transforms import build_daily, build_hourly
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.runtime import delta
from pipelines.silver.schema import silver_table

if TYPE_CHECKING:
    from tests.conftest import Copy

Row = dict[str, Any]
DAY = date(2026, 1, 28)
NOON = datetime(2026, 1, 28, 12, tzinfo=UTC)
AFTER_GRACE = datetime(2026, 1, 29, 2, tzinfo=UTC)


@dataclass
class Books:
    """A lake of Silver and Gold, and the batch over it."""

    spark: SparkSession
    settings: Settings

    @property
    def paths(self) -> Paths:
        return Paths.of(self.settings)

    def add(self, *events: Row, processed_at: datetime = NOON) -> None:
        """Append Silver rows: event_id, at (hours of the day), and what else differs."""
        columns = silver_table(read_schemas(self.settings.schemas_dir)).columns
        rows = []
        for changes in events:
            at = datetime(2026, 1, 28, tzinfo=UTC) + timedelta(hours=changes.get("at", 10))
            row = {
                "event_timestamp": at,
                "customer_id": "c1",
                "api_key_id": "k1",
                "endpoint": "/a",
                "method": "GET",
                "status_code": 200,
                "response_time_ms": 12.5,
                "request_bytes": 100,
                "response_bytes": 1000,
                "_is_late_arriving": False,
                "_event_date": at.date(),
                "_processed_at": processed_at,
                **{name: value for name, value in changes.items() if name != "at"},
            }
            rows.append([row.get(column.name) for column in columns])
        schema = ", ".join(f"{column.name} {column.type}" for column in columns)
        self.spark.createDataFrame(rows, schema).coalesce(1).write.format("delta").mode("append").save(self.paths.silver)

    def aggregate(self, now: datetime = NOON) -> None:
        """Bring Gold up to Silver, as the Gold job does."""
        hourly = build_hourly(self.spark.read.format("delta").load(self.paths.silver))
        hours = [row["hour"] for row in hourly.select("hour").distinct().collect()]
        merge_hourly(self.spark, self.paths.hourly, hourly, hours, now)
        merge_daily(self.spark, self.paths.daily, build_daily(hourly), [DAY], now, silver_version=0)

    def reconcile(self, now: datetime, *, dry_run: bool = False) -> Outcome:
        """Run the batch with a gate that asks nothing: what it asks has tests of its own."""
        return reconcile(self.spark, self.settings, self.paths, DAY, now, dry_run=dry_run, suites=[])

    def rows(self, path: str) -> list[Row]:
        rows: list[Row] = DeltaTable(path).to_pyarrow_table().to_pylist()
        return sorted(rows, key=repr)

    def execute(self, statement: str) -> None:
        """Change a table behind everybody's back: `{hourly}`, `{daily}` and `{silver}` are the tables."""
        names = {name: f"delta.`{getattr(self.paths, name)}`" for name in ("hourly", "daily", "silver")}
        self.spark.sql(statement.format(**names))


@pytest.fixture
def books(spark: SparkSession, tmp_path: Path, made_once: Copy) -> Books:
    """Empty tables."""

    def of(folder: Path) -> Books:
        overrides = {"lake.root": str(folder / "lake"), "lake.state_dir": str(folder)}
        return Books(spark, load_settings(None, environ={}, overrides=overrides))

    def make(folder: Path) -> None:
        made = of(folder)
        delta.ensure_table(spark, silver_table(read_schemas(made.settings.schemas_dir)), made.paths.silver)
        delta.ensure_table(spark, HOURLY_TABLE, made.paths.hourly)
        delta.ensure_table(spark, DAILY_TABLE, made.paths.daily)

    made_once(tmp_path, make)
    return of(tmp_path)
