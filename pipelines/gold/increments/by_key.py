"""Brings `gold.api_usage_by_key` to Silver as it is now, by what changed since its position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.increments.merge_here import add
from pipelines.gold.increments.position import Move, Position, find_position, position_id, position_note
from pipelines.gold.increments.step import Apply, Idle, Limits, Recompute, Step, next_step
from pipelines.gold.publish import moment
from pipelines.gold.schema import BY_KEY_KEYS, BY_KEY_MEASURES
from pipelines.gold.transforms import DEFINITION, build_by_key
from pipelines.lake.contract.source_gaps import find_gap
from pipelines.lake.delta_log.history import commits_after, newest_commits
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.errors import DamagedError
from pipelines.lake.places import absolute
from pipelines.lake.tables import GOLD_BY_KEY
from pipelines.runtime import delta

_MANY_HOURS = 2_400
"""Where more hours are to be replaced, all rows are: a condition that names hours is to stay short."""
_HAS_USAGE = " OR ".join(f"{name} <> 0" for name in BY_KEY_MEASURES)
_NUMBER = "coalesce(unix_seconds(hour) DIV 3600, 0)"
"""An hour as a number, for Python's calendar has not all of them; a row without an hour, a stranger's, counts as of hour 0."""


@dataclass(frozen=True)
class ByKey:
    """The table and the Silver that it follows.

    Guarantee: a step takes whole versions of Silver, each once: rows and position are one commit, made only where the position
    still is the one that the step started from.
    """

    silver: str
    path: str
    limits: Limits

    def follow(self, spark: SparkSession) -> int:
        """Bring the table to Silver as it is now, in as many steps as that takes; return Silver's version.

        The caller holds Gold's lease.
        """
        current = delta.current_version(spark, self.silver)
        while not isinstance(self.step(spark, current), Idle):
            pass
        return current

    def step(self, spark: SparkSession, current: int) -> Step:
        """Do one step towards version `current` of Silver and return it; `Idle` where the table stands for that.

        A step that finds the position moved by a rival writes nothing: the next one starts from there.
        """
        app_id = position_id("by-key", delta.table_id(spark, self.silver), DEFINITION)
        # Before the look: a rival that moves the position after this has the commit refused.
        expected = delta.transaction_version(spark, self.path, app_id)
        looked_at = delta.current_version(spark, self.path)
        position = find_position(newest_commits(self.path, looked_at), app_id)
        after = position.source_version if isinstance(position, Position) else -1
        step = next_step(position, commits_after(self.silver, after), current, self.limits)
        if isinstance(step, Apply):
            try:
                self._apply(spark, step, Move(app_id, expected, step.upto, looked_at))
            except (PySparkException, Py4JJavaError):
                # Looked for only where the feed cannot be read: each file of each version is asked for.
                gap = find_gap(existing_table(absolute(self.silver)), step.after + 1, change_feed=True)
                if gap is None:
                    raise
                step = Recompute(current, f"version {gap.version} of its source cannot be read: {gap.why}")
        if isinstance(step, Recompute):
            self._recompute(spark, step, Move(app_id, expected, step.version, looked_at))
        return step

    def require_same(self, spark: SparkSession, usage: DataFrame, hours: Sequence[datetime], silver_version: int) -> None:
        """Raise DamagedError where the table holds another usage in `hours` than `usage`, recomputed from Silver."""
        # Bounds and hours, both as literals: files are found by the bounds.
        asked = F.col("hour").between(moment(min(hours)), moment(max(hours))) & F.col("hour").isin([moment(one) for one in hours])
        held = _add_up(spark.read.format("delta").load(self.path).where(asked))
        found = _differing(usage, held).agg(F.count(F.lit(1)).alias("keys"), F.min("hour").cast("string").alias("hour"))
        [differing] = found.collect()
        if keys := differing["keys"]:
            msg = (
                f"{GOLD_BY_KEY} holds another usage than version {silver_version} of Silver gives, for {keys:,} keys from "
                f"{differing['hour']} on, expected the same; rebuild Gold as playbooks/full-rebuild.md says, and report it."
            )
            raise DamagedError(msg)

    def _apply(self, spark: SparkSession, step: Apply, move: Move) -> None:
        changed = changed_usage(spark, self.silver, step.after, step.upto).persist()
        try:
            few = changed.limit(self.limits.few_keys + 1).toArrow()
            # Where deltalake sees another position, Spark's view of the log decides below: what both see is moved by a rival.
            if few.num_rows <= self.limits.few_keys and add(self.path, few, move):
                return
            hours = _hours_of(changed)
            held = read_usage(spark, self.path, move.looked_at, _of_hours(hours))
            self._replace(_add_up(held.unionByName(changed)), hours, move)
        finally:
            changed.unpersist()

    def _recompute(self, spark: SparkSession, step: Recompute, move: Move) -> None:
        silver = spark.read.format("delta").option("versionAsOf", step.version).load(self.silver)
        held, recomputed = read_usage(spark, self.path, move.looked_at), build_by_key(silver)
        hours = _hours_of(_differing(recomputed, held)) if held.limit(1).count() else None
        if hours is not None:
            # By Silver's own column, so that only the files of these days are read.
            days = sorted({hour // 24 for hour in hours}) if len(hours) <= _MANY_HOURS else []
            day = F.col("_event_date")
            of_days = silver.where(day.isNull() | day.isin([F.date_from_unix_date(F.lit(one)) for one in days]))
            recomputed = build_by_key(of_days if days else silver).where(_of_hours(hours))
        self._replace(recomputed, hours, move)

    def _replace(self, rows: DataFrame, hours: list[int] | None, move: Move) -> None:
        """Put `rows` in the place of all rows of `hours` (None: of the table), and move the position; no hours: only that."""
        delta.advance(
            rows,
            self.path,
            app_id=move.app_id,
            expected=move.expected,
            to=move.to,
            metadata=position_note(move.looked_at),
            replaced=_of_hours(hours) if hours != [] else None,
        )


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


def read_usage(spark: SparkSession, path: str, version: int, condition: str = "true") -> DataFrame:
    """Usage by key as the table has it at `version`, where `condition` holds; a key that a stranger doubled is added up."""
    return _add_up(spark.read.format("delta").option("versionAsOf", version).load(path).where(condition))


def _add_up(rows: DataFrame) -> DataFrame:
    summed = rows.groupBy(*BY_KEY_KEYS).agg(*(F.sum(name).alias(name) for name in BY_KEY_MEASURES))
    return summed.where(_HAS_USAGE)


def _differing(recomputed: DataFrame, held: DataFrame) -> DataFrame:
    """By how much each key is held too low."""
    minus = held.select(*BY_KEY_KEYS, *((-F.col(name)).alias(name) for name in BY_KEY_MEASURES))
    return _add_up(recomputed.unionByName(minus))


def _hours_of(rows: DataFrame) -> list[int]:
    found = rows.select(F.expr(_NUMBER).alias("hour")).distinct().limit(_MANY_HOURS + 1)
    return [row["hour"] for row in found.collect()]


def _of_hours(hours: list[int] | None) -> str:
    """The rows of `hours` as a condition; all rows where they are many, or None."""
    if hours is None or len(hours) > _MANY_HOURS:
        return "true"
    if not hours:
        return "false"
    begin, end = min(hours) * 3600, (max(hours) + 1) * 3600
    # The bounds find the files.
    within = f"hour IS NULL OR hour BETWEEN timestamp_seconds({begin}) AND timestamp_seconds({end})"
    return f"({within}) AND {_NUMBER} IN ({', '.join(map(str, hours))})"
