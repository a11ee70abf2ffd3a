"""Gold's aggregates on inline Silver rows: whole numbers only, so that any split and order gives the same bits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession

from pipelines.gold.schema import DAILY_TABLE, HOURLY_TABLE, LATENCY_COLUMNS
from pipelines.gold.transforms import build_daily, build_hourly

Row = dict[str, Any]
_SILVER = (
    "event_timestamp timestamp, customer_id string, api_key_id string, endpoint string, status_code int, "
    "response_time_ms double, request_bytes bigint, response_bytes bigint, _is_late_arriving boolean"
)


def _row(**changes: Any) -> Row:
    fields: Row = {
        "event_timestamp": datetime(2026, 1, 28, 10, 30),  # noqa: DTZ001  # Spark's session is UTC
        "customer_id": "c1",
        "api_key_id": "k1",
        "endpoint": "/a",
        "status_code": 200,
        "response_time_ms": 12.5,
        "request_bytes": 1,
        "response_bytes": 10,
        "_is_late_arriving": False,
    }
    return {**fields, **changes}


def _silver(spark: SparkSession, *rows: Row) -> DataFrame:
    return spark.createDataFrame([tuple(row.values()) for row in rows], _SILVER)


def _at(hour: int, minute: int = 0, second: int = 0, micro: int = 0) -> datetime:
    return datetime(2026, 1, 28, hour, minute, second, micro)  # noqa: DTZ001  # Spark's session is UTC


def test_latency_falls_into_one_bucket_whose_upper_bound_is_inclusive(spark: SparkSession) -> None:
    latencies = [0.0, 5.0, 5.000001, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 5000.1, 1e300]
    [row] = build_hourly(_silver(spark, *(_row(response_time_ms=ms) for ms in latencies))).collect()

    assert [row[name] for name in LATENCY_COLUMNS] == [2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2]
    assert sum(row[name] for name in LATENCY_COLUMNS) == row["event_count"] == len(latencies)


def test_event_without_latency_counts_but_in_no_bucket(spark: SparkSession) -> None:
    [row] = build_hourly(_silver(spark, _row(response_time_ms=None))).collect()

    assert row["event_count"] == 1
    assert {row[name] for name in LATENCY_COLUMNS} == {0}


def test_errors_begin_at_400(spark: SparkSession) -> None:
    [row] = build_hourly(_silver(spark, *(_row(status_code=code) for code in (399, 400, 499, 500, 599, 100)))).collect()

    assert (row["event_count"], row["error_count"]) == (6, 4)


def test_totals_keys_and_hours_are_told_apart(spark: SparkSession) -> None:
    rows = [
        _row(event_timestamp=_at(10), api_key_id="k1", _is_late_arriving=True),
        _row(event_timestamp=_at(10, 59, 59, 999_999), api_key_id="k2", request_bytes=2**40),
        _row(event_timestamp=_at(10, 1), api_key_id="k1"),
        _row(event_timestamp=_at(11), api_key_id="k1"),
        _row(endpoint="/b"),
        _row(customer_id="c2"),
    ]
    hourly = build_hourly(_silver(spark, *rows))
    found = {(row["hour"], row["customer_id"], row["endpoint"]): row for row in hourly.collect()}
    first = found[_at(10), "c1", "/a"]

    assert set(found) == {(_at(10), "c1", "/a"), (_at(11), "c1", "/a"), (_at(10), "c1", "/b"), (_at(10), "c2", "/a")}
    names = ("event_count", "distinct_api_keys", "request_bytes", "response_bytes", "late_count")
    assert [first[name] for name in names] == [3, 2, 2**40 + 2, 30, 1]
    daily = {row["customer_id"]: row for row in build_daily(hourly).collect()}
    assert [daily["c1"][name] for name in ("event_count", "distinct_endpoints", "late_count")] == [5, 2, 1]
    assert [daily["c2"][name] for name in ("event_count", "distinct_endpoints", "response_bytes")] == [1, 1, 10]


def test_columns_are_those_of_the_tables(spark: SparkSession) -> None:
    hourly = build_hourly(_silver(spark, _row()))
    types = {column.name: column.type for column in HOURLY_TABLE.columns}

    assert dict(hourly.dtypes) == {name: kind for name, kind in types.items() if name != "_updated_at"}
    daily = {column.name: column.type for column in DAILY_TABLE.columns}
    assert dict(build_daily(hourly).dtypes).items() <= daily.items()


def test_any_split_and_order_gives_the_same_rows(spark: SparkSession) -> None:
    rows = [
        _row(
            event_timestamp=_at(n % 3, n % 60),
            customer_id=f"c{n % 2}",
            api_key_id=f"k{n % 5}",
            response_time_ms=n * 0.1,
            status_code=200 + n % 7 * 50,
            request_bytes=n**3,
        )
        for n in range(200)
    ]
    whole = build_hourly(_silver(spark, *rows).coalesce(1))
    split = build_hourly(_silver(spark, *reversed(rows)).repartition(7))

    assert_df_equality(whole, split, ignore_row_order=True, ignore_nullable=True)
    assert_df_equality(build_daily(whole), build_daily(split), ignore_row_order=True, ignore_nullable=True)
