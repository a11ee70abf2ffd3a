"""Gold's MERGEs on real tables: a repetition changes no row, what vanished is deleted, what is final stays."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from pipelines.gold.publish import MergeCounts, days_of, merge_daily, merge_hourly
from pipelines.gold.schema import DAILY_KEYS, DAILY_MEASURES, DAILY_TABLE, HOURLY_KEYS, HOURLY_MEASURES, HOURLY_TABLE
from pipelines.lake.tables import GOLD_DAILY, GOLD_HOURLY
from pipelines.runtime import delta

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

NOW = datetime(2026, 1, 29, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
DAY, NEXT = date(2026, 1, 28), date(2026, 1, 29)
TEN, ELEVEN = datetime(2026, 1, 28, 10), datetime(2026, 1, 28, 11)  # noqa: DTZ001  # Spark's session is UTC


def _hourly(spark: SparkSession, *rows: tuple[datetime, str, int]) -> DataFrame:
    columns = "hour timestamp, customer_id string, endpoint string, " + ", ".join(f"{name} bigint" for name in HOURLY_MEASURES)
    return spark.createDataFrame(
        [(hour, customer, "/a", count, *[0] * (len(HOURLY_MEASURES) - 1)) for hour, customer, count in rows], columns
    ).select(*HOURLY_KEYS, *HOURLY_MEASURES)


def _daily(spark: SparkSession, *rows: tuple[date, str, int]) -> DataFrame:
    columns = "day date, customer_id string, " + ", ".join(f"{name} bigint" for name in DAILY_MEASURES)
    return spark.createDataFrame(
        [(day, customer, count, *[0] * (len(DAILY_MEASURES) - 1)) for day, customer, count in rows], columns
    ).select(*DAILY_KEYS, *DAILY_MEASURES)


@pytest.fixture
def gold(lake: Lake) -> Lake:
    delta.ensure_table(lake.spark, HOURLY_TABLE, lake.path(GOLD_HOURLY))
    delta.ensure_table(lake.spark, DAILY_TABLE, lake.path(GOLD_DAILY))
    return lake


def _hours(lake: Lake) -> list[tuple[Any, ...]]:
    rows = lake.rows(GOLD_HOURLY)
    return sorted((row["hour"].hour, row["customer_id"], row["event_count"], row["_updated_at"]) for row in rows)


def _days(lake: Lake) -> list[tuple[Any, ...]]:
    rows = lake.rows(GOLD_DAILY)
    names = ("day", "customer_id", "event_count", "billing_status", "silver_version")
    return sorted(tuple(row[name] for name in names) for row in rows)


def test_hours_become_what_was_recomputed_and_nothing_else_moves(gold: Lake, spark: SparkSession) -> None:
    path = gold.path(GOLD_HOURLY)
    first = _hourly(spark, (TEN, "c1", 1), (TEN, "c2", 2), (ELEVEN, "c1", 3))

    assert merge_hourly(spark, path, first, [TEN, ELEVEN], NOW) == MergeCounts(3, 0, 0)
    assert merge_hourly(spark, path, first, [TEN, ELEVEN], LATER) == MergeCounts(0, 0, 0)
    assert {row[3] for row in _hours(gold)} == {NOW}
    # c2 vanished from the hour; the other hour is out of scope.
    again = _hourly(spark, (TEN, "c1", 5), (TEN, "c3", 1))
    assert merge_hourly(spark, path, again, [TEN], LATER) == MergeCounts(1, 1, 1)
    assert _hours(gold) == [(10, "c1", 5, LATER), (10, "c3", 1, LATER), (11, "c1", 3, NOW)]
    assert merge_hourly(spark, path, _hourly(spark), [ELEVEN], LATER) == MergeCounts(0, 0, 1)


def test_file_is_written_anew_only_where_a_row_changed(gold: Lake, spark: SparkSession) -> None:
    hourly, daily = gold.path(GOLD_HOURLY), gold.path(GOLD_DAILY)

    def versions() -> list[int]:
        return [delta.current_version(spark, path) for path in (hourly, daily)]

    rows, days = _hourly(spark, (TEN, "c1", 1), (TEN, "c2", 2)), _daily(spark, (DAY, "c1", 1))
    merge_hourly(spark, hourly, rows, [TEN], NOW)
    merge_daily(spark, daily, days, [DAY], NOW, silver_version=1)
    before = versions()

    merge_hourly(spark, hourly, rows, [TEN], LATER)
    merge_daily(spark, daily, days, [DAY], LATER, silver_version=2)
    assert versions() == before
    merge_hourly(spark, hourly, _hourly(spark, (TEN, "c1", 1), (TEN, "c2", 3)), [TEN], LATER)
    merge_daily(spark, daily, _daily(spark), [DAY], LATER, silver_version=2)
    assert versions() == [before[0] + 1, before[1] + 1]


def test_row_that_somebody_doubled_or_took_the_customer_from_is_mended(gold: Lake, spark: SparkSession) -> None:
    path = gold.path(GOLD_HOURLY)
    rows = _hourly(spark, (TEN, "c1", 1), (TEN, "c2", 2))
    merge_hourly(spark, path, rows, [TEN], NOW)
    DeltaTable.forPath(spark, path).update("customer_id = 'c2'", {"customer_id": "NULL"})
    spark.read.format("delta").load(path).where("customer_id = 'c1'").write.format("delta").mode("append").save(path)

    assert merge_hourly(spark, path, rows, [TEN], LATER) == MergeCounts(2, 0, 3)
    assert _hours(gold) == [(10, "c1", 1, LATER), (10, "c2", 2, LATER)]


def test_column_that_somebody_added_stays_theirs(gold: Lake, spark: SparkSession) -> None:
    path = gold.path(GOLD_HOURLY)
    merge_hourly(spark, path, _hourly(spark, (TEN, "c1", 1)), [TEN], NOW)
    spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS (noted_by string)")
    DeltaTable.forPath(spark, path).update(set={"noted_by": "'me'"})

    assert merge_hourly(spark, path, _hourly(spark, (TEN, "c1", 2), (TEN, "c2", 1)), [TEN], LATER) == MergeCounts(1, 1, 0)
    noted = {(row["customer_id"], row["event_count"], row["noted_by"]) for row in gold.rows(GOLD_HOURLY)}
    assert noted == {("c1", 2, "me"), ("c2", 1, None)}


def test_final_day_stays_as_billed_and_open_days_follow(gold: Lake, spark: SparkSession) -> None:
    path = gold.path(GOLD_DAILY)
    rows = _daily(spark, (DAY, "c1", 1), (NEXT, "c1", 2))

    assert merge_daily(spark, path, rows, [DAY, NEXT], NOW, silver_version=1) == MergeCounts(2, 0, 0)
    assert merge_daily(spark, path, rows, [DAY, NEXT], LATER, silver_version=2) == MergeCounts(0, 0, 0)
    assert {row[4] for row in _days(gold)} == {1}
    closed = merge_daily(spark, path, _daily(spark, (DAY, "c1", 4)), [DAY], LATER, silver_version=3, close=True)
    assert closed == MergeCounts(0, 1, 0)
    # A late event, a customer who is new on the closed day, and one who vanished from it: no change there.
    late = _daily(spark, (DAY, "c1", 9), (DAY, "c2", 1), (NEXT, "c2", 7))
    assert merge_daily(spark, path, late, [DAY, NEXT], LATER, silver_version=4) == MergeCounts(1, 0, 1)
    assert _days(gold) == [(DAY, "c1", 4, "final", 3), (NEXT, "c2", 7, "provisional", 4)]
    assert merge_daily(spark, path, _daily(spark), [DAY], LATER, silver_version=5) == MergeCounts(0, 0, 0)


def test_days_of_hours_are_unique_and_sorted() -> None:
    assert days_of([ELEVEN, TEN + timedelta(days=1), TEN]) == [DAY, NEXT]


def test_long_list_of_hours_leaves_those_between_them_alone(gold: Lake, spark: SparkSession) -> None:
    path = gold.path(GOLD_HOURLY)
    merge_hourly(spark, path, _hourly(spark, (TEN, "c1", 1), (ELEVEN, "c1", 3)), [TEN, ELEVEN], NOW)
    hours = [TEN + timedelta(hours=number) for number in range(-600, 600) if TEN + timedelta(hours=number) != ELEVEN]

    assert merge_hourly(spark, path, _hourly(spark, (TEN, "c1", 2)), hours, LATER) == MergeCounts(0, 1, 0)
    assert _hours(gold) == [(10, "c1", 2, LATER), (11, "c1", 3, NOW)]
