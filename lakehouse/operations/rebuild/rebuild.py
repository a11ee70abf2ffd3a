"""Rebuilds Silver from Bronze, or Gold from Silver, in a folder of its own; compares with the live tables; swaps.

The streaming jobs do the work, with other settings: a shallow clone of the source table stands where they look for it. The
swap is one Delta commit in each live table, which keeps its id, its history and so every checkpoint that knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.operations.rebuild.plan import MANIFEST, RebuildPlan
from lakehouse.operations.streams import STREAMS
from pipelines.gold.schema import BY_KEY_TABLE, DAILY_TABLE, FINAL, HOURLY_TABLE
from pipelines.lake.causes.classify import classify
from pipelines.lake.delta_log import opening
from pipelines.lake.errors import UsageError
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import DLQ, GOLD_DAILY, SILVER, TableName
from pipelines.runtime import delta
from pipelines.runtime.stream_life import AVAILABLE_NOW, await_query
from pipelines.silver.schema import DLQ_TABLE, EVENT_KEYS, EVENT_STAMPS

Progress = Callable[[str], None]
_COORDINATES = ("_kafka_topic", "_kafka_partition", "_kafka_offset")
_DEFINED = (DLQ_TABLE, BY_KEY_TABLE, HOURLY_TABLE, DAILY_TABLE)
KEYS: Mapping[TableName, Sequence[str]] = {SILVER: EVENT_KEYS, **{table.name: table.keys for table in _DEFINED}}
STAMPS: Mapping[TableName, Sequence[str]] = {SILVER: EVENT_STAMPS, **{table.name: table.stamps for table in _DEFINED}}
"""Columns that say when and from what a row was made: not compared, and kept where the row is equal."""
_IRREPLACEABLE = {
    DLQ: ("true", "what was decided about its letters"),
    GOLD_DAILY: (f"billing_status = '{FINAL}'", "issued bills"),
}
"""Rows of live tables that a rebuild takes over, as it cannot make them, and what they are."""
_LETTER = ("_kafka_timestamp", "_dlq_date")
"""Columns of a dead letter that never change; its rules are those of its last attempt, its bytes are `verify`'s (I11)."""


@dataclass(frozen=True)
class Difference:
    """Rows of a live table and of its rebuild, by key; `readable` is False where the live rows cannot be read."""

    table: TableName
    equal: int
    only_live: int
    only_rebuilt: int
    changed: int
    readable: bool = True

    @property
    def is_none(self) -> bool:
        """Whether the two hold the same rows."""
        return self.readable and not (self.only_live or self.only_rebuilt or self.changed)


def build(spark: SparkSession, settings: Settings, plan: RebuildPlan, progress: Progress, stop: Event) -> None:
    """Build the tables of `plan` in its folder; what an earlier run left there is replaced.

    Raises UsageError where `stop` was set before the end was reached: half a rebuild is compared with nothing; and where
    rows cannot be read that it cannot make anew.
    """
    refuse_unreadable(spark, settings, plan)
    storage = open_storage(plan.folder)
    names = storage.names()
    if names and MANIFEST not in names:
        msg = f"The folder {plan.folder} holds something else than a rebuild; give another one with --into."
        raise UsageError(msg)
    remove(plan.folder)
    storage.create(MANIFEST, plan.manifest("begun").encode())
    scratch = plan.settings(settings)
    clone, source = (absolute(path) for path in (plan.source.path(scratch), plan.source_path))
    spark.sql(f"CREATE TABLE delta.`{clone}` SHALLOW CLONE delta.`{source}` VERSION AS OF {plan.source_version}")
    if plan.layer == "silver":
        _drop_discarded(spark, settings, plan, clone)
    progress(f"building {plan.layer} from version {plan.source_version} of {plan.source}")
    await_query(STREAMS[plan.layer](spark, scratch, trigger=AVAILABLE_NOW), stop)
    if stop.is_set():
        msg = f"The rebuild of {plan.layer} was stopped half-way; nothing was changed, run it again."
        raise UsageError(msg)
    storage.replace(MANIFEST, plan.manifest("built").encode())


def refuse_unreadable(spark: SparkSession, settings: Settings, plan: RebuildPlan) -> None:
    """Raise UsageError where live rows cannot be read that the rebuild takes over, before anything is built or swapped.

    UnreadableError where this user may not read them: a rebuild takes the place of damaged rows, not of unseen ones.
    """
    for table in plan.targets:
        opening.require_seen(table.path(settings))
    for table, (rows, what) in _IRREPLACEABLE.items():
        path = table.path(settings)
        if table not in plan.targets or not delta.is_delta_table(spark, path):
            continue
        try:
            spark.read.format("delta").load(path).where(rows).write.format("noop").mode("overwrite").save()
        except (PySparkException, Py4JJavaError) as error:
            msg = (
                f"{table} at {path} cannot be read ({classify(error).reason}), and no other table has {what}; restore its "
                "files from a backup, or see playbooks/full-rebuild.md for how to go on without them."
            )
            raise UsageError(msg) from None


def letters_of_records(spark: SparkSession, plan: RebuildPlan, letters: DataFrame) -> DataFrame:
    """Those of `letters` that a record of Bronze stands behind: with its bytes, or closed and without any since retention."""
    records = spark.read.format("delta").option("versionAsOf", plan.source_version).load(plan.source_path)
    on = F.col("l._raw_value").eqNullSafe(F.col("b._raw_value")) | F.expr("l._raw_value IS NULL AND l._status <> 'open'")
    for name in _COORDINATES:
        on = on & (F.col(f"l.{name}") == F.col(f"b.{name}"))
    return letters.alias("l").join(records.select(*_COORDINATES, "_raw_value").alias("b"), on=on, how="left_semi")


def _drop_discarded(spark: SparkSession, settings: Settings, plan: RebuildPlan, clone: str) -> None:
    """Take discarded records out of the clone of Bronze: that they are no events was a decision, whatever the rules are now."""
    path = DLQ.path(settings)
    if not delta.is_delta_table(spark, path):
        return
    discarded = spark.read.format("delta").load(path).where("_status = 'discarded'")
    if discarded.isEmpty():
        return
    discarded = letters_of_records(spark, plan, discarded).select(*_COORDINATES).distinct()
    spark.sql(f"ALTER TABLE delta.`{clone}` SET TBLPROPERTIES ('delta.appendOnly' = 'false')")
    same = " AND ".join(f"t.{name} = s.{name}" for name in _COORDINATES)
    records = DeltaTable.forPath(spark, clone).alias("t")
    records.merge(F.broadcast(discarded).alias("s"), same).whenMatchedDelete().execute()


def remove(folder: str) -> None:
    """Remove a rebuild's folder; the manifest goes last, so that what a crash leaves is still known as a rebuild."""
    storage = open_storage(folder)
    for name in storage.names():
        if name != MANIFEST:
            storage.remove(name)
    storage.remove()


def compare(spark: SparkSession, settings: Settings, plan: RebuildPlan, progress: Progress) -> list[Difference]:
    """Compare each live table with its rebuild, by key, without the columns that say when a row was made.

    Raises UsageError where rows cannot be read that the rebuild cannot make anew.
    """
    refuse_unreadable(spark, settings, plan)
    found = []
    for table in plan.targets:
        progress(f"comparing {table}")
        path = table.path(settings)
        rebuilt = rebuilt_rows(spark, settings, plan, table)
        live = open_rows(spark, table, path) if delta.is_delta_table(spark, path) else rebuilt.limit(0)
        try:
            found.append(difference(table, live, rebuilt))
        except (PySparkException, Py4JJavaError):
            found.append(Difference(table, 0, 0, rebuilt.count(), 0, readable=False))
    return found


def rebuilt_rows(spark: SparkSession, settings: Settings, plan: RebuildPlan, table: TableName) -> DataFrame:
    """Rows of a rebuilt table, but for closed dead letters and closed days, which are not to be made anew."""
    rows = spark.read.format("delta").load(table.path(plan.settings(settings)))
    path = table.path(settings)
    if table == DLQ and delta.is_delta_table(spark, path):
        closed = spark.read.format("delta").load(path).where("_status <> 'open'").select(*_COORDINATES)
        return rows.join(closed, on=list(_COORDINATES), how="left_anti").select(rows.columns)
    if table == GOLD_DAILY and delta.is_delta_table(spark, path):
        closed = spark.read.format("delta").load(path).where(F.col("billing_status") == FINAL)
        rows = rows.join(F.broadcast(closed.select("day").distinct()), on="day", how="left_anti").select(rows.columns)
        return rows.withColumn("silver_version", F.lit(plan.source_version).cast("bigint"))
    return rows


def open_rows(spark: SparkSession, table: TableName, path: str) -> DataFrame:
    """Rows of a live table that a rebuild is compared with: all, but for closed dead letters and issued bills."""
    rows = spark.read.format("delta").load(path)
    if table == DLQ:
        return rows.where("_status = 'open'")
    return rows.where(F.col("billing_status") != FINAL) if table == GOLD_DAILY else rows


def content(table: TableName, columns: Sequence[str]) -> list[str]:
    """Columns of a table that are compared, beside its keys."""
    if table == DLQ:
        return list(_LETTER)
    return [name for name in columns if name not in (*KEYS[table], *STAMPS[table])]


def difference(table: TableName, live: DataFrame, rebuilt: DataFrame) -> Difference:
    """Count equal and differing keys; a key with several rows is equal only where both sides have the same rows."""
    keys = list(KEYS[table])
    names = content(table, rebuilt.columns)

    def digest(rows: DataFrame, side: str) -> DataFrame:
        values = [F.col(name) if name in rows.columns else F.lit(None) for name in names]
        return rows.groupBy(*keys).agg(F.struct(F.count(F.lit(1)), F.bit_xor(F.xxhash64(*values))).alias(side))

    both = digest(live, "l").join(digest(rebuilt, "r"), on=keys, how="full_outer")
    count = both.agg(
        F.count_if(F.col("l") == F.col("r")).alias("equal"),
        F.count_if(F.col("r").isNull()).alias("only_live"),
        F.count_if(F.col("l").isNull()).alias("only_rebuilt"),
        F.count_if(F.col("l") != F.col("r")).alias("changed"),
    ).collect()[0]
    return Difference(table, count["equal"], count["only_live"], count["only_rebuilt"], count["changed"])
