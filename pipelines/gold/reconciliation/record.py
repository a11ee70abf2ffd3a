"""Writes what a run of the reconciliation found to `ops.reconciliation`: its differences, then the run as a whole."""

from __future__ import annotations

import json
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.paths import Paths
from pipelines.gold.publish import day_of
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.schema import RECONCILIATION_TABLE
from pipelines.runtime import delta


def record_differences(spark: SparkSession, paths: Paths, found: DataFrame, outcome: Outcome, now: datetime) -> None:
    """Append the rows of `found` (see `find_differences`), if there are any; Gold's version after the repair is not known yet."""
    if outcome.differences:
        _append(spark, paths, found, outcome, now, version_after=None)


def record_run(spark: SparkSession, paths: Paths, outcome: Outcome, now: datetime) -> None:
    """Append the row of grain `day`: events before and after, and how many differences of each cause."""
    causes = {f"{grain}.{cause}": count for (grain, cause), count in sorted(outcome.differences.items())}
    row = (None, "event_count", outcome.events_before, outcome.events_after, json.dumps(causes) if causes else "none", "day")
    frame = spark.createDataFrame([row], "key string, measure string, before bigint, after bigint, cause string, grain string")
    _append(spark, paths, frame, outcome, now, version_after=delta.last_version(spark, paths.hourly))


def _append(
    spark: SparkSession, paths: Paths, frame: DataFrame, outcome: Outcome, now: datetime, *, version_after: int | None
) -> None:
    rows = frame.withColumns(
        {
            "run_id": F.lit(outcome.run_id),
            "day": day_of(outcome.day),
            "reconciled_at": F.lit(now),
            "silver_version": F.lit(outcome.silver_version).cast("bigint"),
            "gold_version_before": F.lit(outcome.gold_version).cast("bigint"),
            "gold_version_after": F.lit(version_after).cast("bigint"),
            "billing_status": F.lit(outcome.status),
        }
    )
    rows.select(RECONCILIATION_TABLE.column_names).coalesce(1).write.format("delta").mode("append").save(paths.reconciliation)
