"""The states of dead letters: each change is one update that may run again.

A replay claims its letters (`_replay_id` set, `_last_attempt_at` NULL), runs them through Silver's sink, which closes
those that pass, and leaves the others open with one attempt more. A replay that died is known by what it has claimed.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.runtime import delta
from pipelines.silver.facts import Longs
from pipelines.silver.transforms import coordinate

OPEN, REPLAYED, DISCARDED = "open", "replayed", "discarded"

_WRITER = "dead letters"
_OFFSETS = (1 << 48) - 1
_NEWS = ("_quality_flags", "_error_message")


def close_replayed(spark: SparkSession, path: str, coordinates: Longs, replay_id: str, at: datetime) -> None:
    """Close the open letters at `coordinates`: Silver has the record now, or a copy of its event.

    Idempotent: letters that are closed stay as they are.
    """
    changes = {"_status": F.lit(REPLAYED), "_closed_at": F.lit(at), "_replay_id": F.lit(replay_id), **_tried(at)}
    _update(_frame(spark, coordinates), path, coordinates, changes)


def claim(spark: SparkSession, path: str, coordinates: Longs, replay_id: str) -> None:
    """Note in the open letters at `coordinates` which replay is about to try them."""
    changes = {"_replay_id": F.lit(replay_id), "_last_attempt_at": F.lit(None).cast("timestamp")}
    _update(_frame(spark, coordinates), path, coordinates, changes)


def leave_open(judged: DataFrame, path: str, coordinates: Longs, at: datetime) -> None:
    """Count an attempt of letters that were not closed, and keep what is wrong with them now, if the rules say it.

    `judged` has the columns `coordinate`, `_quality_flags` (empty where no rule failed) and `_error_message`.
    """
    says = F.size("s._quality_flags") > 0
    news = {name: F.when(says, F.col(f"s.{name}")).otherwise(F.col(f"t.{name}")) for name in _NEWS}
    _update(judged, path, coordinates, {**news, **_tried(at)})


def release(spark: SparkSession, path: str, replay_id: str, at: datetime) -> None:
    """Count an attempt of all letters that the replay has claimed, and let them go."""
    letters = DeltaTable.forPath(spark, path).alias("t")
    with delta.commits_are_ours(spark, _WRITER):
        letters.update(condition=_is_claimed() & (F.col("_replay_id") == replay_id), set=_tried(at))  # type: ignore[arg-type]


def claimed(letters: DataFrame) -> DataFrame:
    """The letters of replays that have not finished."""
    return letters.where(_is_claimed())


def _is_claimed() -> Column:
    return (F.col("_status") == OPEN) & F.col("_replay_id").isNotNull() & F.col("_last_attempt_at").isNull()


def _tried(at: datetime) -> dict[str, Column]:
    return {"_attempts": F.col("t._attempts") + 1, "_last_attempt_at": F.lit(at)}


def _frame(spark: SparkSession, coordinates: Longs) -> DataFrame:
    return spark.createDataFrame(pa.table({"coordinate": coordinates}))


def _update(source: DataFrame, path: str, coordinates: Longs, changes: dict[str, Column]) -> None:
    offsets = coordinates & _OFFSETS
    # Literal bounds: files without these offsets are not opened.
    near = F.col("t._kafka_offset").between(int(offsets.min()), int(offsets.max()))
    merge = (
        DeltaTable.forPath(source.sparkSession, path)
        .alias("t")
        .merge(F.broadcast(source).alias("s"), near & (coordinate("t.") == F.col("s.coordinate")))
        .whenMatchedUpdate(condition=F.col("t._status") == OPEN, set=changes)  # type: ignore[arg-type]  # dict is invariant
    )
    with delta.commits_are_ours(source.sparkSession, _WRITER):
        merge.execute()
