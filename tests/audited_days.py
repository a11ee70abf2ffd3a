"""A lake of days with some hundred events each, all but the last closed, for tests of the gate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.gate.results import Audit, QualityStore
from pipelines.gold.paths import Paths
from pipelines.gold.publish import day_of, hours_of, merge_daily, merge_hourly
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.reconcile import audit, reconcile
from pipelines.gold.schema import ADJUSTMENTS_TABLE, DAILY_TABLE, HOURLY_TABLE
from pipelines.gold.transforms import build_daily, build_hourly
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.views import BILL
from pipelines.runtime import delta
from pipelines.silver.schema import silver_table

if TYPE_CHECKING:
    from tests.conftest import Copy

DAY = date(2026, 1, 28)
"""A Wednesday, open; the seven days before it are closed."""
EVENTS = 900
PROCESSED = datetime(2026, 1, 30, tzinfo=UTC)
LATER = datetime(2026, 2, 20, tzinfo=UTC)


@dataclass
class AuditedDays:
    """A lake of Silver and Gold, without a ledger: it is told of in tests of its own."""

    spark: SparkSession
    settings: Settings

    @property
    def paths(self) -> Paths:
        return Paths.of(self.settings)

    def add(self, *days: date, events: int = EVENTS, seed: int = 0, customers: int = 12, **changes: Column) -> None:
        """Append days of Silver, in one commit: `changes` by column, as a function of `id`."""
        rows = [self._events(day, events, seed, customers, changes) for day in days]
        reduce(DataFrame.union, rows).coalesce(1).write.format("delta").mode("append").save(self.paths.silver)

    def aggregate(self, *days: date, close: bool = False) -> None:
        """Bring Gold up to Silver, as its stream does; `close` the days as the batch does."""
        silver = self.spark.read.format("delta").load(self.paths.silver).where(F.col("_event_date").isin(list(days)))
        hourly = build_hourly(silver).persist()
        hours = [hours_of(day)[0] + timedelta(hours=hour) for day in days for hour in range(24)]
        merge_hourly(self.spark, self.paths.hourly, hourly, hours, LATER)
        merge_daily(self.spark, self.paths.daily, build_daily(hourly), days, LATER, silver_version=0, close=close)
        hourly.unpersist()

    def execute(self, statement: str) -> None:
        """Change a table behind everybody's back: `{silver}`, `{hourly}`, `{daily}` are the tables."""
        names = {name: f"delta.`{getattr(self.paths, name)}`" for name in ("silver", "hourly", "daily", "candidates")}
        self.spark.sql(statement.format(**names))

    def audit(self, day: date = DAY) -> Audit:
        from pipelines.gold.gate.gate import open_suites  # noqa: PLC0415

        return audit(self.spark, self.settings, self.paths, day, open_suites(self.settings))

    def reconcile(self, day: date = DAY, **options: object) -> Outcome:
        return reconcile(self.spark, self.settings, self.paths, day, LATER, **options)  # type: ignore[arg-type]

    def billed(self, day: date = DAY) -> dict[str, int]:
        """What billing reads of a day: events by customer."""
        daily, adjustments = (self.spark.read.format("delta").load(path) for path in (self.paths.daily, self.paths.adjustments))
        rows = self.spark.sql(BILL.query, daily=daily, adjustments=adjustments).where(F.col("day") == day_of(day)).collect()
        return {row["customer_id"]: row["event_count"] for row in rows}

    def audits(self) -> list[Audit]:
        return QualityStore(self.settings).audits()

    def _events(self, day: date, events: int, seed: int, customers: int, changes: dict[str, Column]) -> DataFrame:
        """Rows of Silver: events spread over the day, few customers with most of them."""

        def draw(number: int, below: int) -> Column:
            return F.pmod(F.xxhash64("id", F.lit(f"{day} {seed} {number}")), F.lit(below))

        begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        values = {
            "event_id": F.concat(F.lit(f"{day}-{seed}-"), F.col("id").cast("string")),
            "event_timestamp": F.timestamp_millis(F.lit(begin * 1000) + draw(1, 86_400_000)),
            "customer_id": F.concat(F.lit("c"), F.floor(F.pow(draw(2, 1000) / 1000, F.lit(2)) * customers).cast("string")),
            "api_key_id": F.concat(F.lit("k"), draw(3, 30).cast("string")),
            "endpoint": F.concat(F.lit("/v1/"), draw(4, 6).cast("string")),
            "method": F.when(draw(5, 3) == 0, "POST").otherwise("GET"),
            "status_code": F.when(draw(6, 12) == 0, 500).otherwise(200),
            "response_time_ms": draw(7, 900) / 10,
            "request_bytes": draw(8, 900),
            "response_bytes": draw(9, 9000),
            "region": F.when(draw(10, 2) == 0, "us-east-1").otherwise("eu-central-1"),
            "schema_version": F.lit("1.0"),
            "_is_late_arriving": draw(11, 50) == 0,
            "_event_date": day_of(day),
            "_processed_at": F.lit(PROCESSED),
            **changes,
        }
        columns = silver_table(read_schemas(self.settings.schemas_dir)).columns
        return self.spark.range(events).select(
            *(values.get(column.name, F.lit(None)).cast(column.type).alias(column.name) for column in columns)
        )


@pytest.fixture
def days(spark: SparkSession, tmp_path: Path, made_once: Copy) -> AuditedDays:
    """Seven closed days and an open one, Gold up to date."""

    def of(folder: Path) -> AuditedDays:
        overrides = {"lake.root": str(folder / "lake"), "lake.state_dir": str(folder)}
        return AuditedDays(spark, load_settings(None, environ={}, overrides=overrides))

    def make(folder: Path) -> None:
        made = of(folder)
        tables = (
            (silver_table(read_schemas(made.settings.schemas_dir)), made.paths.silver),
            (HOURLY_TABLE, made.paths.hourly),
            (DAILY_TABLE, made.paths.daily),
            (ADJUSTMENTS_TABLE, made.paths.adjustments),
        )
        for table, path in tables:
            delta.ensure_table(spark, table, path)
        past = [DAY - timedelta(days=back) for back in range(7, 0, -1)]
        made.add(*past, DAY)
        made.aggregate(*past, close=True)
        made.aggregate(DAY)

    made_once(tmp_path, make)
    return of(tmp_path)
