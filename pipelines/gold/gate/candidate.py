"""Writes a day's candidate where billing does not see it, reads back what was written, and takes it away once it is published."""

from __future__ import annotations

from datetime import date, datetime

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.publish import day_of, day_sql
from pipelines.gold.schema import CANDIDATES_TABLE
from pipelines.runtime import delta

_WRITER = "gate"


def write_candidate(
    spark: SparkSession, path: str, daily: DataFrame, day: date, *, silver_version: int, run_id: str, now: datetime
) -> int:
    """Put `daily` (rows of `day`) in the place of whatever candidate the day has, in one commit; return the table's version."""
    delta.ensure_table(spark, CANDIDATES_TABLE, path)
    rows = daily.withColumns(
        {
            "silver_version": F.lit(silver_version).cast("bigint"),
            "run_id": F.lit(run_id),
            "created_at": F.lit(now),
        }
    ).select(CANDIDATES_TABLE.column_names)
    writer = rows.coalesce(1).write.format("delta").mode("overwrite")
    with delta.commits_are_ours(spark, _WRITER):
        writer.option("replaceWhere", f"day = {day_sql(day)}").save(path)
    return delta.last_version(spark, path)


def read_candidate(spark: SparkSession, path: str, day: date, version: int) -> DataFrame:
    """The candidate of `day` as it lies in the table at `version`: what was written is audited, and is published."""
    return spark.read.format("delta").option("versionAsOf", version).load(path).where(F.col("day") == day_of(day))


def has_candidate(spark: SparkSession, path: str, day: date) -> bool:
    """Whether a candidate of `day` waits."""
    if not delta.is_delta_table(spark, path):
        return False
    return spark.read.format("delta").load(path).where(F.col("day") == day_of(day)).limit(1).count() > 0


def clear_candidate(spark: SparkSession, path: str, day: date) -> None:
    """Take the candidate of `day` away; nothing is committed where there is none."""
    with delta.commits_are_ours(spark, _WRITER):
        DeltaTable.forPath(spark, path).delete(F.col("day") == day_of(day))
