"""Makes the live dead letters those of a rebuild of Silver."""

from __future__ import annotations

from delta.tables import DeltaTable
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from lakehouse.operations.rebuild.plan import RebuildPlan
from lakehouse.operations.rebuild.rebuild import KEYS, letters_of_records
from lakehouse.operations.rollback.rollback import letter_state
from pipelines.lake.settings import Settings
from pipelines.lake.tables import DLQ
from pipelines.runtime import delta


def remove_strays(spark: SparkSession, settings: Settings, plan: RebuildPlan) -> int:
    """Remove letters that only another writer can have made: no record of Bronze stands behind them, or another letter does.

    Of several for one record the one stays that says most about it: discarded, replayed, open.
    """
    path, keys = DLQ.path(settings), list(KEYS[DLQ])
    letters = spark.read.format("delta").load(path)
    status = F.col("_status")
    first = Window.partitionBy(*keys).orderBy(status != "discarded", status != "replayed", "_dead_lettered_at")
    kept = letters_of_records(spark, plan, letters).withColumn("_copy", F.row_number().over(first)).where("_copy = 1")
    kept = kept.select(letters.columns)
    counts = letters.groupBy(*keys).agg(F.count(F.lit(1)).alias("_copies"))
    known = kept.select(*keys, F.lit(True).alias("_known"))
    strays = counts.join(known, on=keys, how="left").where("_copies > 1 OR _known IS NULL").select(*keys)
    if strays.isEmpty():
        return 0
    put = kept.join(strays, on=keys, how="left_semi").withColumn("_anew", F.lit(True))
    source = put.unionByName(strays.withColumn("_anew", F.lit(False)), allowMissingColumns=True)
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(source.alias("s"), f"{_same_letter()} AND NOT s._anew")
        .whenMatchedDelete()
        .whenNotMatchedInsert(condition="s._anew", values={name: f"s.`{name}`" for name in letters.columns})
    )
    with delta.commits_are_ours(spark, "rebuild"):
        result = merge.execute().collect()[0]
    return int(result["num_deleted_rows"]) - int(result["num_inserted_rows"])


def merge_letters(spark: SparkSession, settings: Settings, plan: RebuildPlan, run_id: str) -> tuple[int, int]:
    """Add dead letters that only the rebuild has, close open ones whose records pass now, open replayed ones that do not."""
    path = DLQ.path(settings)
    live = spark.read.format("delta").load(path)
    rebuilt = spark.read.format("delta").load(DLQ.path(plan.settings(settings)))
    added = rebuilt.join(live.select(*KEYS[DLQ]), on=list(KEYS[DLQ]), how="left_anti").count()
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(rebuilt.alias("s"), _same_letter())
        .whenMatchedUpdate(condition="t._status = 'replayed'", set=letter_state(live.columns, "open"))
        # By name, not all: a column that somebody added to the table is theirs.
        .whenNotMatchedInsert(values={name: f"s.`{name}`" for name in rebuilt.columns})
        .whenNotMatchedBySourceUpdate(
            condition="t._status = 'open'", set=letter_state(live.columns, "replayed", f"rebuild-{run_id}")
        )
    )
    with delta.commits_are_ours(spark, "rebuild"):
        result = merge.execute().collect()[0]
    return added, int(result["num_updated_rows"])


def _same_letter() -> str:
    return " AND ".join(f"t.{name} = s.{name}" for name in KEYS[DLQ])
