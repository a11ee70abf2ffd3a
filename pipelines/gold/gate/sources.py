"""Holds what an audit of a day reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.gate.audited import KNOWN_OF_SILVER
from pipelines.gold.gate.history import read_history
from pipelines.gold.paths import Paths
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.settings import Settings


@dataclass(frozen=True)
class Sources:
    """All that an audit of `day` reads.

    `silver`: the day's rows at `silver_version`; `hourly`: the hours recomputed from them; `candidate`: what would be billed;
    `wrong`: differences between Gold and Silver that nothing explains (see `find_unexplained`).
    """

    spark: SparkSession
    settings: Settings
    day: date
    silver_version: int
    silver: DataFrame
    hourly: DataFrame
    candidate: DataFrame
    wrong: DataFrame
    paths: Paths

    @property
    def begin(self) -> datetime:
        """When the day begins, UTC."""
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """When the day's grace ends, UTC."""
        return self.begin + timedelta(days=1, hours=self.settings.reconcile.grace_hours)

    def silver_rows(self) -> DataFrame:
        """The Silver rows with the columns that suites may speak of."""
        fields = read_schemas(self.settings.schemas_dir).fields
        known = self.silver.withColumn("status_class", F.floor(F.col("status_code") / 100).cast("int"))
        return known.select(*fields, *(column.name for column in KNOWN_OF_SILVER))

    def history(self) -> tuple[list[date], DataFrame]:
        """The closed days that the day is compared with, and their bills."""
        days = self.settings.quality.history_days
        return read_history(self.spark, self.paths.daily, self.paths.adjustments, self.day, days)
