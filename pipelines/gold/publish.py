"""Gold's two MERGEs: recomputed rows over what the tables hold; only rows that changed are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipelines.gold.schema import DAILY_KEYS, DAILY_MEASURES, FINAL, HOURLY_KEYS, HOURLY_MEASURES, PROVISIONAL
from pipelines.runtime import delta


@dataclass(frozen=True)
class MergeCounts:
    """Rows that a MERGE inserted, updated and deleted."""

    inserted: int
    updated: int
    deleted: int


def merge_hourly(spark: SparkSession, path: str, rows: DataFrame, hours: Sequence[datetime], now: datetime) -> MergeCounts:
    """Make the rows of `hours` equal to `rows` (recomputed from Silver). Idempotent: a repetition changes nothing."""
    # Hours between these are not among `rows`, and would be taken for gone; the bounds alone only help to find the files.
    scope = F.col("t.hour").isin([moment(hour) for hour in hours])
    scope = scope & F.col("t.hour").between(moment(min(hours)), moment(max(hours)))
    source = rows.withColumn("_updated_at", F.lit(now))
    return _merge(spark, path, source, keys=HOURLY_KEYS, compared=HOURLY_MEASURES, scope=scope)


def merge_daily(
    spark: SparkSession,
    path: str,
    rows: DataFrame,
    days: Sequence[date],
    now: datetime,
    *,
    silver_version: int,
    close: bool = False,
) -> MergeCounts:
    """Make the open rows of `days` equal to `rows`; final ones are never touched. `close` makes them final."""
    wanted = [day_of(day) for day in days]
    scope = F.col("t.day").isin(wanted)
    source = rows.select(
        *DAILY_KEYS,
        *DAILY_MEASURES,
        F.lit(FINAL if close else PROVISIONAL).alias("billing_status"),
        F.lit(silver_version).cast("bigint").alias("silver_version"),
        F.lit(now).alias("_updated_at"),
    )
    closed = (
        spark.read.format("delta")
        .load(path)
        .where(F.col("billing_status") == FINAL)
        .where(F.col("day").isin([day_of(day) for day in days]))
    )
    # A closed day stays as it was billed, also for a customer who had no events then.
    source = source.join(F.broadcast(closed.select("day").distinct()), on="day", how="left_anti").select(source.columns)
    compared = (*DAILY_MEASURES, "billing_status")
    return _merge(spark, path, source, keys=DAILY_KEYS, compared=compared, scope=scope & (F.col("t.billing_status") != FINAL))


def _merge(
    spark: SparkSession,
    path: str,
    source: DataFrame,
    *,
    keys: Sequence[str],
    compared: Sequence[str],
    scope: Column,
) -> MergeCounts:
    target = spark.read.format("delta").load(path).alias("t").where(scope)
    on = scope & ~F.col("s._anew")
    for key in keys:
        # Null-safe: a row that somebody gave no customer has to go as well.
        on = on & F.col(f"t.{key}").eqNullSafe(F.col(f"s.{key}"))
    # By name, not all: a column that somebody added to the table is theirs.
    values: dict[str, str | Column] = {name: F.col(f"s.{name}") for name in source.columns}
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(_differing(source, target, keys=keys, compared=compared).alias("s"), on)
        .whenMatchedDelete(condition=F.col("s._gone"))
        .whenMatchedUpdate(set=values)
        .whenNotMatchedInsert(condition=~F.col("s._gone"), values=values)
    )
    with delta.commits_are_ours(spark, "gold"):
        result = merge.execute().collect()[0]
    return MergeCounts(result["num_inserted_rows"], result["num_updated_rows"], result["num_deleted_rows"])


def _differing(source: DataFrame, target: DataFrame, *, keys: Sequence[str], compared: Sequence[str]) -> DataFrame:
    """What the MERGE has to do: a MERGE copies each file in which a row matches, so one that is given all rows copies them all.

    Rows of `source` that `target` (aliased `t`) lacks or has otherwise, and with `_gone` the keys that `source` lacks. A key that
    `target` has more than once, which nobody but a stray writer does, is `_gone` and then inserted `_anew`, matching nothing.
    """
    copies = Window.partitionBy(*keys)
    gone, is_new, doubled = F.col("s._there").isNull(), F.col("t._copies").isNull(), F.col("t._copies") > 1
    changed = gone | is_new | doubled
    for name in compared:
        changed = changed | ~F.col(f"t.{name}").eqNullSafe(F.col(f"s.{name}"))
    kept = [F.col(name if name in keys else f"s.{name}") for name in source.columns]
    delete, put, put_anew = (
        F.struct(F.lit(first).alias("_gone"), F.lit(second).alias("_anew"))
        for first, second in ((True, False), (False, False), (False, True))
    )
    todo = F.when(gone, F.array(delete)).when(doubled, F.array(delete, put_anew)).otherwise(F.array(put))
    return (
        target.select(
            "t.*", F.count("*").over(copies).alias("_copies"), F.row_number().over(copies.orderBy(*keys)).alias("_copy")
        )
        .where("_copy = 1")
        .alias("t")
        # By equality, that Spark need not sort the rows anew; a key that is NULL equals none, so its row is gone.
        .join(source.select("*", F.lit(True).alias("_there")).alias("s"), on=list(keys), how="full_outer")
        .where(changed)
        .select(*kept, F.inline(todo))
    )


def moment(at: datetime) -> Column:
    """A literal of an instant, which stands in UTC where it has no zone; made of a number.

    PySpark writes the year of a date or time as it is, and Java refuses one of less than four digits; before 1582 it would be
    taken for a day of the Julian calendar.
    """
    since = (at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return F.timestamp_micros(F.lit(since // timedelta(microseconds=1)))


def day_of(day: date) -> Column:
    """A literal of a day, made of a number as `moment`."""
    return F.expr(day_sql(day))


def day_sql(day: date) -> str:
    """`day_of` as SQL, for conditions that Delta takes as a text."""
    return f"date_from_unix_date({(day - date(1970, 1, 1)).days})"


def days_of(hours: Sequence[datetime]) -> list[date]:
    """The days that `hours` lie in."""
    return sorted({hour.date() for hour in hours})


def hours_of(day: date) -> tuple[datetime, datetime]:
    """Begin and end (exclusive) of a day, UTC, without a zone as Spark's session (UTC) takes it."""
    begin = datetime(day.year, day.month, day.day)  # noqa: DTZ001  # literals are read in the session's zone, UTC
    return begin, begin + timedelta(days=1)
