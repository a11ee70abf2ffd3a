"""Brings `gold.api_usage_by_key` to Silver as it is now, by what changed since its position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.increments.merge_here import add, can_add
from pipelines.gold.increments.position import Move, Position, find_position, position_id, position_note
from pipelines.gold.increments.step import Apply, Idle, Limits, Recompute, Step, next_step
from pipelines.gold.publish import moment
from pipelines.gold.schema import BY_KEY_KEYS, BY_KEY_MEASURES
from pipelines.gold.transforms import DEFINITION, build_by_key
from pipelines.lake.delta_log.history import commits_after, newest_commits
from pipelines.lake.errors import DamagedError
from pipelines.lake.tables import GOLD_BY_KEY
from pipelines.runtime import delta

_MANY_DAYS = 100
"""Where more days are to be replaced, all rows are: a condition that names days is to stay short."""
_HAS_USAGE = " OR ".join(f"{name} <> 0" for name in BY_KEY_MEASURES)
_NO_DAY = 0
"""Stands for the day of a row that has no hour: some day has to be replaced for such rows to be."""


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
            self._apply(spark, step, Move(app_id, expected, step.upto, looked_at))
        elif isinstance(step, Recompute):
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
        changed = changed_usage(spark, self.silver, step.after, step.upto)
        few = changed.limit(self.limits.few_keys + 1).toArrow()
        if few.num_rows <= self.limits.few_keys and can_add(self.path, few):
            add(self.path, few, move)
            return
        days = _days_of(changed)
        held = read_usage(spark, self.path, move.looked_at, _of_days(days) if days else "false")
        self._replace(_add_up(held.unionByName(changed)), days, move)

    def _recompute(self, spark: SparkSession, step: Recompute, move: Move) -> None:
        silver = spark.read.format("delta").option("versionAsOf", step.version).load(self.silver)
        held, recomputed = read_usage(spark, self.path, move.looked_at), build_by_key(silver)
        days = _days_of(_differing(recomputed, held)) if held.limit(1).count() else None
        if days is not None and len(days) <= _MANY_DAYS:
            # By Silver's own column, so that only the files of these days are read.
            literals = [F.date_from_unix_date(F.lit(day)) for day in days]
            recomputed = build_by_key(silver.where(F.col("_event_date").isin(literals)))
        self._replace(recomputed, days, move)

    def _replace(self, rows: DataFrame, days: list[int] | None, move: Move) -> None:
        """Put `rows` in the place of all rows of `days` (None: of the table), and move the position; no days: only that."""
        delta.advance(
            rows if days != [] else rows.limit(0),
            self.path,
            app_id=move.app_id,
            expected=move.expected,
            to=move.to,
            metadata=position_note(move.looked_at),
            replaced=_of_days(days) if days != [] else None,
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


def _days_of(rows: DataFrame) -> list[int]:
    """Days since 1970, of which there are more than Python's dates have."""
    days = rows.select(F.coalesce(F.unix_date(F.to_date("hour")), F.lit(_NO_DAY)).alias("day")).distinct()
    return [row["day"] for row in days.limit(_MANY_DAYS + 1).collect()]


def _of_days(days: list[int] | None) -> str:
    """The rows of `days` and of no day, which are a stranger's, as a condition; all rows where the days are many, or None."""
    if days is None or len(days) > _MANY_DAYS:
        return "true"
    begin, end = min(days) * 86_400, (max(days) + 1) * 86_400
    within = f"hour >= timestamp_seconds({begin}) AND hour < timestamp_seconds({end})"
    return f"hour IS NULL OR ({within} AND unix_date(to_date(hour)) IN ({', '.join(map(str, days))}))"
