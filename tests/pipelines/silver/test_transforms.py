"""Silver's transforms on inline records: late and skew bounds, the billed day, keys, bytes of dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.lake.event_schema import read_schemas
from pipelines.lake.settings import SilverSettings
from pipelines.runtime.kafka_columns import with_kafka_ms
from pipelines.silver.facts import REJECTED, TOMBSTONE, VALID, Facts
from pipelines.silver.rules import rejecting_rules, warning_rules
from pipelines.silver.schema import DLQ_TABLE, silver_table
from pipelines.silver.transforms import (
    build_dead_letters,
    build_facts,
    build_silver_rows,
    classify,
    coordinate,
    parse_events,
    payload_hash,
    second_key,
)

Row = dict[str, Any]
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
SCHEMAS = read_schemas("conf/schemas/api_usage_events")
COLUMNS = silver_table(SCHEMAS).column_names
_BRONZE = (
    "_kafka_topic string, _kafka_partition int, _kafka_offset bigint, _kafka_timestamp timestamp, _kafka_key binary, "
    "_kafka_headers array<struct<key:string,value:binary>>, _raw_value binary"
)
_NAMES = [column.split(" ")[0] for column in _BRONZE.split(", ")]


def _parsed(spark: SparkSession, records: list[Row]) -> DataFrame:
    rows = [[record[name] for name in _NAMES] for record in records]
    return parse_events(with_kafka_ms(spark.createDataFrame(rows, _BRONZE))).coalesce(1)


def _silver(spark: SparkSession, records: list[Row]) -> DataFrame:
    warnings = warning_rules(SilverSettings())
    return build_silver_rows(_parsed(spark, records), warnings, COLUMNS, late_after_seconds=7200, processed_at=T0)


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_event_is_late_only_beyond_two_hours(
    spark: SparkSession, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    microsecond = timedelta(microseconds=1)
    delays = {timedelta(0): False, timedelta(hours=2): False, timedelta(hours=2) + microsecond: True, -timedelta(hours=3): False}
    sent = [make_event(event_timestamp=_instant(T0 - delay)) for delay in delays]
    rows = _silver(spark, [make_record(event, offset, at=T0) for offset, event in enumerate(sent)]).collect()

    assert [row["_is_late_arriving"] for row in rows] == list(delays.values())
    assert [row["_arrival_delay_seconds"] for row in rows] == [delay.total_seconds() for delay in delays]
    assert [row["_quality_flags"] for row in rows] == [[], [], [], ["SLV-101"]]


def test_billed_day_is_the_utc_day_of_the_event_and_not_of_kafka(
    spark: SparkSession, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    texts = ["2026-01-27T23:59:59.999999Z", "2026-01-28T00:00:00Z", "2026-01-28T00:30:00+02:00", "2026-01-27T23:00:00-05:00"]
    records = [make_record(make_event(event_timestamp=text), n, at=T0) for n, text in enumerate(texts)]

    days = [row["_event_date"] for row in _silver(spark, records).collect()]
    assert days == [date(2026, 1, 27), date(2026, 1, 28), date(2026, 1, 27), date(2026, 1, 28)]


def test_silver_row_has_the_tables_columns_and_the_records_coordinates(
    spark: SparkSession, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    frame = _silver(spark, [make_record(make_event(extra=1), 7, partition=3)])
    [row] = frame.collect()

    assert frame.columns == COLUMNS
    assert (row["_kafka_partition"], row["_kafka_offset"], row["_quality_flags"]) == (3, 7, ["SLV-102"])
    assert {name: row[name] for name in make_event() if name != "event_timestamp"} == {
        name: value for name, value in make_event().items() if name != "event_timestamp"
    }


def test_dead_letters_keep_every_byte(spark: SparkSession, make_record: Callable[..., Row]) -> None:
    values = [b"\xff\x00\xfe", b"", bytes(range(256)), b'{"a": 1} \n']
    frame = build_dead_letters(
        _parsed(spark, [make_record(value, n) for n, value in enumerate(values)]), rejecting_rules(), dead_lettered_at=T0
    )
    rows = frame.collect()

    assert frame.columns == DLQ_TABLE.column_names
    assert [bytes(row["_raw_value"]) for row in rows] == values
    assert {(bytes(row["_kafka_key"]), bytes(row["_kafka_headers"][0]["value"])) for row in rows} == {(b"\x00key", b"\xff")}
    assert [row["_quality_flags"] for row in rows] == [["SLV-002"], ["SLV-003"], ["SLV-002"], ["SLV-005"]]
    assert {(row["_status"], row["_attempts"], row["_stage"]) for row in rows} == {("open", 1, "silver")}


def test_facts_give_each_record_its_verdict(
    spark: SparkSession, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    values = [make_event(), None, b"", make_event(status_code=1), make_event(event_id="e2")]
    parsed = _parsed(spark, [make_record(value, n, partition=n % 2, at=T0) for n, value in enumerate(values)])
    facts = Facts.from_arrow(build_facts(classify(parsed, rejecting_rules()), list(SCHEMAS.fields)).toArrow())
    keys = parsed.select(coordinate().alias("c"), second_key(F.col("event.event_id")).alias("k")).collect()

    assert facts.verdict.tolist() == [VALID, TOMBSTONE, REJECTED, REJECTED, VALID]
    assert facts.kafka_ms.tolist() == [int(T0.timestamp()) * 1000] * 5
    assert facts.event_us.tolist()[:3] == [int(T0.timestamp()) * 1_000_000, 0, 0]
    assert facts.key[0] != facts.key[4]
    assert facts.key2[0] != facts.key2[4] != facts.key[4]
    assert facts.coordinates().tolist() == [row["c"] for row in keys]
    assert facts.key2[0] == keys[0]["k"]


def test_payload_hash_ignores_ids_and_times_and_sees_all_else(
    spark: SparkSession, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    same = [make_event(), make_event(event_id="e9"), make_event(event_timestamp="2026-01-28T11:00:00Z")]
    other: list[Row] = [
        {"customer_id": "c"},
        {"api_key_id": "k"},
        {"endpoint": "/"},
        {"method": "PUT"},
        {"status_code": 201},
        {"region": None},
    ]
    other += [{"response_time_ms": 12.6}, {"response_time_ms": None}, {"request_bytes": 101}, {"response_bytes": 2001}]
    events = [*same, *(make_event(**change) for change in other)]
    parsed = _parsed(spark, [make_record(event, n) for n, event in enumerate(events)])
    hashes = [row["h"] for row in parsed.select(payload_hash(list(SCHEMAS.fields), "event.").alias("h")).collect()]

    assert len(set(hashes[:3])) == 1
    assert len(set(hashes)) == 1 + len(other)


def test_bytes_of_json_do_not_decide_what_a_conflict_is(
    spark: SparkSession, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    event = make_event(response_time_ms=7)
    spelt = json.dumps(dict(reversed(event.items())), indent=1).replace(": 7", ": 7.0").encode()
    parsed = _parsed(spark, [make_record(event, 0), make_record(spelt, 1)])

    assert len({row["h"] for row in parsed.select(payload_hash(list(SCHEMAS.fields), "event.").alias("h")).collect()}) == 1
