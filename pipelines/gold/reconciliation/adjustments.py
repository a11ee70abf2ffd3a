"""Reads a closed day's bill and books what it lacks: adjustments as deltas, with causes; the bill is never rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import reduce

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.publish import day_of
from pipelines.gold.schema import ADJUSTMENTS_TABLE, CORRECTED, DAILY_KEYS, LATE, REPLAYED, TOTALS
from pipelines.gold.transforms import build_daily, build_hourly
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.places import absolute
from pipelines.runtime import delta


@dataclass(frozen=True)
class Bill:
    """A closed day as issued so far: `rows` (day, customer_id, TOTALS, _updated_at) are the final rows plus the adjustments.

    `sequence`: bookings so far. `silver_version`: the version of Silver that `rows` stand for. `since` (UTC): what Silver
    took in later is not in them.
    """

    day: date
    rows: DataFrame
    sequence: int
    silver_version: int
    since: datetime


def read_bill(spark: SparkSession, daily: DataFrame, adjustments_path: str, silver_path: str, day: date) -> Bill:
    """Read the bill of `day`, whose final rows are `daily`; the adjustments are read at one version."""
    version = delta.current_version(spark, adjustments_path)
    table = spark.read.format("delta").option("versionAsOf", version).load(adjustments_path)
    adjustments = table.where(F.col("day") == day_of(day))
    booked = adjustments.agg(F.max("sequence"), F.max("silver_version_to"), F.max("created_at")).collect()[0]
    closed = daily.agg(F.max("silver_version"), F.max("_updated_at")).collect()[0]
    silver_version = max(closed[0], -1 if booked[1] is None else booked[1])
    # A batch that was under way when the bill was made had begun before it, but after the commit that the bill stands for.
    times = [(booked[2] or closed[1]).replace(tzinfo=UTC), _commit_time(silver_path, silver_version)]
    since = min(time for time in times if time is not None)
    return Bill(day, build_issued(daily, adjustments, since), booked[0] or 0, silver_version, since)


def _commit_time(path: str, version: int) -> datetime | None:
    """When `version` was committed; None where the log no longer reaches back."""
    commit = next(newest_commits(absolute(path), version, at_most=1), None)
    return commit.at if commit is not None else None


def build_issued(daily: DataFrame, adjustments: DataFrame, since: datetime) -> DataFrame:
    """Add the adjustments to the final rows: day, customer_id, TOTALS; `since` stands as `_updated_at`."""
    columns = [*DAILY_KEYS, *TOTALS]
    return (
        daily.select(columns)
        .unionByName(adjustments.select(columns))
        .groupBy(*DAILY_KEYS)
        .agg(*(F.sum(F.coalesce(name, F.lit(0))).alias(name) for name in TOTALS))
        .withColumn("_updated_at", F.lit(since))
    )


def build_adjustments(silver: DataFrame, recomputed: DataFrame, issued: DataFrame) -> DataFrame:
    """Give what the bill `issued` lacks: day, customer_id, cause, TOTALS as deltas.

    `silver`: the day's rows; `recomputed`: the daily rows that they give. Where the events that came since explain the
    whole difference of a customer, there is a row for the late ones and one for the others; otherwise one, `corrected`.
    """
    billed_until = issued.select("customer_id", "_updated_at")
    new = silver.join(F.broadcast(billed_until), on="customer_id", how="left").where(
        F.col("_updated_at").isNull() | (F.col("_processed_at") > F.col("_updated_at"))
    )
    is_late = F.col("_is_late_arriving")
    compared = _totals(recomputed, "now")
    for name, rows in (("billed", issued), (LATE, _daily(new.where(is_late))), (REPLAYED, _daily(new.where(~is_late)))):
        compared = compared.join(_totals(rows, name), on=list(DAILY_KEYS), how="full_outer")
    missing = {name: _of("now", name) - _of("billed", name) for name in TOTALS}
    explained = _all(missing[name] == _of(LATE, name) + _of(REPLAYED, name) for name in TOTALS)
    by_cause = [
        F.when(_of(cause, "event_count") > 0, _part(cause, {name: _of(cause, name) for name in TOTALS}))
        for cause in (LATE, REPLAYED)
    ]
    parts = F.when(explained, F.array_compact(F.array(*by_cause))).otherwise(F.array(_part(CORRECTED, missing)))
    return (
        compared.where(~_all(missing[name] == 0 for name in TOTALS))
        .select(*DAILY_KEYS, F.explode(parts).alias("part"))
        .select(*DAILY_KEYS, "part.*")
    )


def book(
    spark: SparkSession, path: str, adjustments: DataFrame, bill: Bill, *, silver_version: int, run_id: str, now: datetime
) -> int:
    """Add `adjustments` (see `build_adjustments`) as the day's next booking, in one commit; return the number of rows.

    Idempotent: a customer's booking of a number stands once, so that of two runs that saw the same bill one adds nothing.
    """
    rows = adjustments.withColumns(
        {
            "sequence": F.lit(bill.sequence + 1),
            "silver_version_from": F.lit(bill.silver_version).cast("bigint"),
            "silver_version_to": F.lit(silver_version).cast("bigint"),
            "run_id": F.lit(run_id),
            "created_at": F.lit(now),
        }
    ).withColumn("adjustment_id", F.sha2(F.to_json(F.struct("day", "customer_id", "sequence", "cause")), 256))
    same = (F.col("t.customer_id") == F.col("s.customer_id")) & (F.col("t.sequence") == F.col("s.sequence"))
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(rows.select(ADJUSTMENTS_TABLE.column_names).coalesce(1).alias("s"), (F.col("t.day") == day_of(bill.day)) & same)
        # By name, not all: a column that somebody added to the table is theirs.
        .whenNotMatchedInsert(values={name: F.col(f"s.{name}") for name in ADJUSTMENTS_TABLE.column_names})
    )
    with delta.commits_are_ours(spark, "reconcile"):
        result = merge.execute().collect()[0]
    return int(result["num_inserted_rows"])


def _daily(silver: DataFrame) -> DataFrame:
    return build_daily(build_hourly(silver))


def _totals(rows: DataFrame, name: str) -> DataFrame:
    return rows.select(*DAILY_KEYS, F.struct(*TOTALS).alias(name))


def _of(side: str, name: str) -> Column:
    return F.coalesce(f"{side}.{name}", F.lit(0))


def _part(cause: str, values: Mapping[str, Column]) -> Column:
    return F.struct(F.lit(cause).alias("cause"), *(value.alias(name) for name, value in values.items()))


def _all(conditions: Iterable[Column]) -> Column:
    return reduce(lambda left, right: left & right, conditions)
