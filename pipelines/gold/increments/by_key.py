"""Brings `gold.api_usage_by_key` to Silver as it is now, by what changed since its position."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.increments.position import Position, find_position, position_id, position_note
from pipelines.gold.increments.step import Apply, Idle, Limits, Recompute, Step, next_step
from pipelines.gold.publish import day_of, day_sql
from pipelines.gold.schema import BY_KEY_KEYS, BY_KEY_MEASURES
from pipelines.gold.transforms import DEFINITION, build_by_key
from pipelines.lake.delta_log.history import commits_after, newest_commits
from pipelines.runtime import delta

_MANY_DAYS = 100
"""Where more days differ, all rows are replaced: a condition that names days is to stay short."""
_HAS_USAGE = " OR ".join(f"{name} <> 0" for name in BY_KEY_MEASURES)
_NO_DAY = date(1970, 1, 1)
"""Stands for the day of a row that has no hour: a day has to differ for such rows to be replaced."""


@dataclass(frozen=True)
class ByKey:
    """The table and the Silver that it follows.

    Guarantee: a step takes whole versions of Silver, each once: rows and position are one commit, made only where the position
    still is the one that the step started from. The table's rows are partial sums.
    """

    silver: str
    path: str
    limits: Limits

    def step(self, spark: SparkSession) -> Step:
        """Do one step and return it; `Idle` where the table stands for Silver as it is now. The caller holds Gold's lease.

        A step that finds the position moved by a rival writes nothing: the next one starts from there.
        """
        app_id = position_id("by-key", delta.table_id(spark, self.silver), DEFINITION)
        # Before the look: a rival that moves the position after this has the commit refused.
        expected = delta.transaction_version(spark, self.path, app_id)
        looked_at = delta.current_version(spark, self.path)
        position = find_position(newest_commits(self.path, looked_at), app_id)
        after = position.source_version if isinstance(position, Position) else -1
        current = delta.current_version(spark, self.silver)
        step = next_step(position, commits_after(self.silver, after), current, self.limits)
        if isinstance(step, Idle):
            return step
        rows, to, replaced = self._rows(spark, step, looked_at)
        delta.advance(
            rows,
            self.path,
            app_id=app_id,
            expected=expected,
            to=to,
            metadata=position_note(looked_at),
            replaced=replaced,
        )
        return step

    def _rows(self, spark: SparkSession, step: Apply | Recompute, looked_at: int) -> tuple[DataFrame, int, str | None]:
        """What the step writes, the version of Silver that it comes to, and which rows it replaces (None: none)."""
        if isinstance(step, Apply):
            return changed_usage(spark, self.silver, step.after, step.upto), step.upto, None
        silver = spark.read.format("delta").option("versionAsOf", step.version).load(self.silver)
        held, recomputed = read_usage(spark, self.path, looked_at), build_by_key(silver)
        days = _differing_days(recomputed, held) if held.limit(1).count() else None
        if days is None or len(days) > _MANY_DAYS:
            return recomputed, step.version, "true"
        if not days:
            return recomputed.limit(0), step.version, None
        # By Silver's own column, so that only the files of these days are read.
        of_days = build_by_key(silver.where(F.col("_event_date").isin([day_of(day) for day in days])))
        # A row without an hour is somebody else's, and of no day.
        return of_days, step.version, f"hour IS NULL OR to_date(hour) IN ({', '.join(day_sql(day) for day in days)})"


def changed_usage(spark: SparkSession, silver: str, after: int, upto: int) -> DataFrame:
    """What versions `after` + 1 to `upto` of Silver added to usage by key, or took away; without keys that they leave alone."""
    feed = (
        spark.read.format("delta")
        .option("readChangeFeed", "true")
        .option("startingVersion", after + 1)
        .option("endingVersion", upto)
        .load(silver)
    )
    sign = F.when(F.col("_change_type").isin("insert", "update_postimage"), 1).otherwise(-1)
    # The feed of a replaced row has both of its images, which mostly cancel out.
    return build_by_key(feed, sign).where(_HAS_USAGE)


def read_usage(spark: SparkSession, path: str, version: int) -> DataFrame:
    """Usage by key as the table has it at `version`: its partial sums added up, a row a key."""
    partial = spark.read.format("delta").option("versionAsOf", version).load(path)
    summed = partial.groupBy(*BY_KEY_KEYS).agg(*(F.sum(name).alias(name) for name in BY_KEY_MEASURES))
    return summed.where(_HAS_USAGE)


def _differing_days(recomputed: DataFrame, held: DataFrame) -> list[date]:
    joined = recomputed.alias("r").join(held.alias("h"), on=list(BY_KEY_KEYS), how="full_outer")
    differs = " OR ".join(f"NOT (r.{name} <=> h.{name})" for name in BY_KEY_MEASURES)
    days = joined.where(differs).select(F.coalesce(F.to_date("hour"), F.lit(_NO_DAY)).alias("day")).distinct()
    return [row["day"] for row in days.collect()]
