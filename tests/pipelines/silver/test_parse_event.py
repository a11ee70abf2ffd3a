"""`events.parse` in Spark, on bytes: what the strict reader takes, what it refuses, and what it calls it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.lake.event_schema import read_schemas
from pipelines.lake.resources import PROJECT

Row = dict[str, Any]
MAX_BYTES = 262_144
"""The default of silver.max_event_bytes, which the test session has."""


def _parse(spark: SparkSession, values: Iterable[bytes | None], catalog: str = "events") -> list[Row]:
    """One result for each value; event_timestamp as text, because Python cannot hold every one of them."""
    values = list(values)
    table = pa.table({"i": range(len(values)), "value": pa.array(values, pa.binary())})
    event = F.col("p.event").withField("event_timestamp", F.col("p.event.event_timestamp").cast("string"))
    parsed = (
        spark.createDataFrame(table)
        .selectExpr("i", f"{catalog}.parse(value) AS p")
        .withColumn("p", F.col("p").withField("event", event))
    )
    return [row["p"].asDict(recursive=True) for row in parsed.orderBy("i").collect()]


def _problems(spark: SparkSession, values: Iterable[bytes | None]) -> list[str | None]:
    return [row["problem"] for row in _parse(spark, values)]


def _field_errors(row: Row) -> Row:
    return {name: row[name] for name in ("problem", "missing", "wrong_type", "out_of_range") if row[name] is not None}


def _details(spark: SparkSession, values: Iterable[bytes | None]) -> list[str | None]:
    return [row["detail"] for row in _parse(spark, values)]


def _deep(depth: int, event: Row) -> bytes:
    """The event, a field of which nests so that the whole is `depth` deep."""
    nested = "[" * (depth - 1) + "]" * (depth - 1)
    return json.dumps(event).encode()[:-1] + f', "deep": {nested}}}'.encode()


def test_valid_event_is_read_with_its_types(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    [row] = _parse(spark, [json.dumps(make_event(region="çé€😀")).encode()])

    assert row["event"] == make_event(region="çé€😀", event_timestamp="2026-01-28 10:00:00")
    assert _field_errors(row) == {}
    assert row["unknown_field"] is False


def test_tombstone_is_no_problem_and_no_event(spark: SparkSession) -> None:
    [row] = _parse(spark, [None])

    said = ("problem", "detail", "missing", "wrong_type", "expected", "out_of_range", "bounds")
    assert row == {"event": None, "unknown_field": False, **dict.fromkeys(said)}


def test_value_of_white_space_is_empty(spark: SparkSession) -> None:
    assert _problems(spark, [b"", b" ", b" \n\t\r "]) == ["empty_value"] * 3


def test_json_that_from_json_lets_pass_is_malformed(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = json.dumps(make_event()).encode()
    body = text[:-1]
    bad = {
        "cut": body,
        "cut in a string": text[: text.index(b"cust-1") + 3],
        "only a brace": b"{",
        "trailing text": text + b" x",
        "trailing object": text + text,
        "trailing brace": text + b"}",
        "duplicate key": body + b', "region": "eu-2"}',
        "duplicate key with an equal value": body + b', "region": "eu-west-1"}',
        "duplicate key, escaped": body + b', "regi\\u006fn": "eu-west-1"}',
        "duplicate unknown key": body + b', "x": 1, "x": 1}',
        "duplicate nested key": body + b', "x": {"y": [{"z": 1, "z": 2}]}}',
        "NaN": text.replace(b"12.5", b"NaN"),
        "Infinity": text.replace(b"12.5", b"-Infinity"),
        "NaN in an unknown field": body + b', "x": NaN}',
        "1e400": text.replace(b"12.5", b"1e400"),
        "leading zero": text.replace(b"200", b"0200"),
        "single quotes": text.replace(b'"', b"'"),
        "comment": b"/* x */" + text,
        "trailing comma": body + b",}",
        "control character in a string": text.replace(b"eu-west-1", b"eu\x01"),
        "half a surrogate pair": text.replace(b"eu-west-1", b"eu\\ud800"),
        "array": b"[" + text + b"]",
        "string": b'"x"',
        "number": b"1",
        "null": b"null",
        "not JSON": b"hello",
    }

    assert dict(zip(bad, _problems(spark, bad.values()), strict=True)) == dict.fromkeys(bad, "malformed_json")


def test_bytes_that_are_not_utf8_are_named_so(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = json.dumps(make_event()).encode()
    bad = {
        "lone continuation byte": text.replace(b"eu-west-1", b"\x80"),
        "overlong slash": text.replace(b"eu-west-1", b"\xc0\xaf"),
        "overlong in three bytes": text.replace(b"eu-west-1", b"\xe0\x80\xaf"),
        "surrogate": text.replace(b"eu-west-1", b"\xed\xa0\x80"),
        "beyond U+10FFFF": text.replace(b"eu-west-1", b"\xf4\x90\x80\x80"),
        "cut sequence in a string": text.replace(b"eu-west-1", b"\xe2\x82"),
        "cut sequence at the end": text + b"\xf0\x9f",
        "UTF-16 with a byte order mark": json.dumps(make_event()).encode("utf-16"),
        "in a key": text[:-1] + b', "\xff": 1}',
        "Latin-1": text.replace(b"eu-west-1", "é".encode("latin-1")),
    }

    assert dict(zip(bad, _problems(spark, bad.values()), strict=True)) == dict.fromkeys(bad, "invalid_utf8")


def test_other_encodings_and_marks_are_not_guessed(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = json.dumps(make_event())
    bad = {
        "UTF-16 little": text.encode("utf-16-le"),
        "UTF-16 big": text.encode("utf-16-be"),
        "UTF-32 little": text.encode("utf-32-le"),
        "UTF-32 big": text.encode("utf-32-be"),
        "byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "leading NUL": b"\x00" + text.encode(),
        "trailing NUL": text.encode() + b"\x00",
        "NUL in a string": text.encode().replace(b"eu-west-1", b"e\x00"),
        "only NUL": b"\x00",
        "space before UTF-16": " {}".encode("utf-16-le"),
    }

    assert dict(zip(bad, _problems(spark, bad.values()), strict=True)) == dict.fromkeys(bad, "malformed_json")


def test_white_space_around_the_object_is_fine(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = json.dumps(make_event(), indent=2).encode()

    assert _problems(spark, [b" \r\n\t" + text + b"\n "]) == [None]


def test_depth_is_bounded_at_64(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    values = [_deep(depth, make_event()) for depth in (64, 65, 50_000)]

    assert _problems(spark, values) == [None, "malformed_json", "malformed_json"]


def test_value_over_the_limit_is_refused_before_it_is_parsed(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = json.dumps(make_event()).encode()
    fits = text + b" " * (MAX_BYTES - len(text))
    garbage = b"\xff" * (MAX_BYTES + 1)

    assert _problems(spark, [fits, fits + b" ", garbage, b" " * (MAX_BYTES + 1)]) == [None, "oversize", "oversize", "oversize"]


def test_value_of_another_type_names_the_field(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    wrong: dict[str, list[Any]] = {
        "customer_id": [1, 1.5, True, [], {}, ["x"]],
        "status_code": ["200", 200.5, True, [], {}, 2**31, -(2**31) - 1, 2**63, 10**30],
        "request_bytes": ["1", 1.5, False, {}, 2**63, -(2**63) - 1],
        "response_time_ms": ["12.5", True, [], {"a": 1}],
        "event_timestamp": [1_769_594_400, True, "", "now", {"a": {"b": 1}}],
    }
    changes = [{field: value} for field, values in wrong.items() for value in values]
    rows = _parse(spark, [json.dumps(make_event(**change)).encode() for change in changes])

    assert [_field_errors(row) for row in rows] == [{"wrong_type": next(iter(change))} for change in changes]


def test_version_without_a_file_is_schema_not_found(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    versions: list[Any] = [1.0, None, ..., "2.0", "1.0 ", ""]
    rows = _parse(spark, [json.dumps(make_event(schema_version=version)).encode() for version in versions])

    assert [row["problem"] for row in rows] == ["schema_not_found"] * len(versions)


def test_numbers_hold_to_the_ends_of_their_range(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    ends = make_event(request_bytes=2**35 - 1, response_time_ms=1.7976931348623157e308)
    whole = make_event(response_time_ms=7)
    rows = _parse(spark, [json.dumps(event).encode() for event in (ends, whole)])

    assert [_field_errors(row) for row in rows] == [{}, {}]
    assert rows[0]["event"]["request_bytes"] == 2**35 - 1
    assert [row["event"]["response_time_ms"] for row in rows] == [1.7976931348623157e308, 7.0]


def test_bounds_are_inclusive(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    fine: list[Row] = [
        {"status_code": 100},
        {"status_code": 599},
        {"request_bytes": 0},
        {"response_time_ms": 0},
        {"response_time_ms": -0.0},
    ]
    off: list[Row] = [
        {"status_code": 99},
        {"status_code": 600},
        {"status_code": -(2**31)},
        {"request_bytes": -1},
        {"request_bytes": 2**35},
        {"response_bytes": -(2**63)},
        {"response_bytes": 2**63 - 1},
        {"response_time_ms": -1e-9},
        {"method": "get"},
        {"method": ""},
        {"method": "TRACE"},
    ]
    rows = _parse(spark, [json.dumps(make_event(**changes)).encode() for changes in [*fine, *off]])

    assert [row["out_of_range"] for row in rows] == [None] * len(fine) + [next(iter(changes)) for changes in off]


def test_lengths_count_characters_and_not_bytes(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    lengths = {0: "region", 1: None, 64: None, 65: "region"}
    rows = _parse(
        spark, [json.dumps(make_event(region=letter * n), ensure_ascii=False).encode() for letter in "aé€😀" for n in lengths]
    )

    assert [row["out_of_range"] for row in rows] == list(lengths.values()) * 4


def test_required_field_that_is_absent_or_null_is_missing(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    changes: list[Row] = [
        {"customer_id": ...},
        {"customer_id": None},
        {"event_id": None, "method": ...},
        {"region": ..., "response_time_ms": None},
    ]
    rows = _parse(spark, [json.dumps(make_event(**change)).encode() for change in changes])

    assert [row["missing"] for row in rows] == ["customer_id", "customer_id", "event_id,method", None]
    assert rows[3]["event"]["region"] is None


def test_wrong_field_is_not_missing_too_and_all_faults_are_named(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    [row] = _parse(spark, [json.dumps(make_event(event_id=5, customer_id=None, status_code=99)).encode()])

    assert _field_errors(row) == {"missing": "customer_id", "wrong_type": "event_id", "out_of_range": "status_code"}


def test_unknown_field_is_flagged_whatever_it_holds(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    unknown: list[Any] = [None, 1, "x", {"a": [1, {"b": None}]}, []]
    rows = _parse(spark, [json.dumps(make_event(extra=value)).encode() for value in unknown])

    assert [(row["unknown_field"], _field_errors(row)) for row in rows] == [(True, {})] * len(unknown)
    assert _parse(spark, [json.dumps(make_event(Region="x")).encode()])[0]["unknown_field"] is True


def test_instant_is_read_to_the_microsecond(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    instants = {
        "2026-01-28T10:15:30Z": "2026-01-28 10:15:30",
        "2026-01-28T10:15:30.1Z": "2026-01-28 10:15:30.1",
        "2026-01-28T10:15:30.123456Z": "2026-01-28 10:15:30.123456",
        "2026-01-28T10:15:30.123456999Z": "2026-01-28 10:15:30.123456",
        "2026-01-28T10:15:30+02:00": "2026-01-28 08:15:30",
        "2026-01-28T23:15:30-05:30": "2026-01-29 04:45:30",
        "2026-01-01T00:00:00+00:01": "2025-12-31 23:59:00",
        "2024-02-29T23:59:59Z": "2024-02-29 23:59:59",
        "2000-02-29T00:00:00Z": "2000-02-29 00:00:00",
        "2026-01-28T10:15:30+0200": "2026-01-28 08:15:30",
        "2026-01-28T10:15:30-05": "2026-01-28 15:15:30",
        "2026-01-28t10:15:30z": "2026-01-28 10:15:30",
        "2026-01-28 10:15:30.5+00:00": "2026-01-28 10:15:30.5",
        "2026-01-28T10:15Z": "2026-01-28 10:15:00",
        "2026-01-28 10:15+0530": "2026-01-28 04:45:00",
        "1970-01-01T00:00:00Z": "1970-01-01 00:00:00",
        "1969-12-31T23:00:00-01:00": "1970-01-01 00:00:00",
        "2199-12-31T23:59:59.999999999Z": "2199-12-31 23:59:59.999999",
        "2200-01-01T01:00+18": "2199-12-31 07:00:00",
    }
    rows = _parse(spark, [json.dumps(make_event(event_timestamp=text)).encode() for text in instants])

    assert [row["wrong_type"] for row in rows] == [None] * len(rows)
    assert [row["event"]["event_timestamp"] for row in rows] == list(instants.values())


def test_text_that_is_no_instant_is_of_the_wrong_type(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    bad = [
        "2026-01-28T10:15:30",  # no offset
        "2026-01-28",
        "2026-01-28T24:00:00Z",
        "2026-01-28T23:60:00Z",
        "2026-12-31T23:59:60Z",
        "2025-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
        "2026-01-28T10:15:30.Z",
        "2026-01-28T10:15:30.1234567890Z",
        "2026-01-28T10:15:30,5Z",
        "2026-01-28T10:15.5Z",
        "2026-01-28T10Z",
        "2026-01-28T10:15",
        "2026-01-28  10:15:30Z",
        "2026-01-28T10:15:30 Z",
        "2026-01-28T10:15:30 +00:00",
        "20260128T101530Z",
        "2026-01-28T10:15:30+020",
        "2026-01-28T10:15:30+02:",
        "2026-01-28T10:15:30GMT",
        "2026-01-28T10:15:30\u221202:00",
        "2026-01-28T10:15:30+2:00",
        "2026-01-28T10:15:30+19:00",
        "2026-01-28T10:15:30+02:60",
        "2026-01-28T10:15:30Z ",
        " 2026-01-28T10:15:30Z",
        "\uff12026-01-28T10:15:30Z",
        "1769594400",
    ]
    rows = _parse(spark, [json.dumps(make_event(event_timestamp=text)).encode() for text in bad])

    assert {text: row["wrong_type"] for text, row in zip(bad, rows, strict=True)} == dict.fromkeys(bad, "event_timestamp")


def test_instant_outside_of_the_lakes_range_is_out_of_range(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    outside = [
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00+00:01",
        "2200-01-01T00:00:00Z",
        "2199-12-31T23:00:00-01:00",
        "0001-01-01T00:00:00+18:00",
        "0026-11-28T10:00:00Z",
        "9999-12-31T23:59:59.999999-18:59",
    ]
    rows = _parse(spark, [json.dumps(make_event(event_timestamp=text)).encode() for text in outside])

    assert [(row["out_of_range"], row["bounds"], row["wrong_type"]) for row in rows] == [
        ("event_timestamp", "instant", None)
    ] * len(outside)


def test_whole_number_is_read_however_it_is_written(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    whole = {
        b"200": 200,
        b"200.0": 200,
        b"2e2": 200,
        b"2E+0002": 200,
        b"20000e-2": 200,
        b"0.0000002e9": 200,
        b"200." + b"0" * 5000: 200,
        b"2" + b"0" * 5000 + b"e-4998": 200,
        b"34359738367.0": 2**35 - 1,
        b"3.4359738367e10": 2**35 - 1,
        b"0e999999999999999999999": 0,
        b"-0.0": 0,
    }
    text = json.dumps(make_event(request_bytes="@")).encode()
    rows = _parse(spark, [text.replace(b'"@"', number) for number in whole])

    assert [(_field_errors(row), row["event"]["request_bytes"]) for row in rows] == [({}, number) for number in whole.values()]


def test_number_with_a_fraction_or_beyond_its_type_is_no_whole_number(
    spark: SparkSession, make_event: Callable[..., Row]
) -> None:
    bad = [
        *(b"200.5", b"1e-1", b"200.00000000000000000000000001", b"1e-999999999999999999999"),
        *(
            b"9223372036854775808.0",
            b"9.223372036854775808e18",
            b"1e19",
            b"-9223372036854775809",
            b"1e999999999",
            b"1e" + b"9" * 5000,
        ),
    ]
    text = json.dumps(make_event(request_bytes="@")).encode()
    rows = _parse(
        spark, [text.replace(b'"@"', number) for number in [*bad, b"9223372036854775807.0", b"-9.223372036854775808e18"]]
    )

    wrong = {"wrong_type": "request_bytes"}
    assert [_field_errors(row) for row in rows] == [wrong] * len(bad) + [{"out_of_range": "request_bytes"}] * 2
    assert {row["expected"] for row in rows} == {"LONG", None}


def test_no_limit_but_size_and_depth_holds_in_unknown_fields(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    body = json.dumps(make_event()).encode()[:-1]
    unknown = [
        b'"x": ' + b"7" * 100_000,
        b'"x": -0.' + b"7" * 5000 + b"e400",
        b'"x": 1e' + b"9" * 5000,
        b'"' + b"k" * 60_000 + b'": 1',
        b'"x": "\\ud83d"',
        b'"\\ud83d": 1, "\\ude00": 1, "?": 1',
        b", ".join(b'"k%d": %d' % (i, i) for i in range(8000)),
    ]
    rows = _parse(spark, [body + b", " + field + b"}" for field in unknown])

    assert [(_field_errors(row), row["unknown_field"]) for row in rows] == [({}, True)] * len(unknown)


def test_text_of_white_space_only_is_out_of_range_where_one_is_asked_for(
    spark: SparkSession, make_event: Callable[..., Row]
) -> None:
    blank = ["", " ", "   ", "\t\n\r", "\u00a0", "\u2003\u3000", "\u0085", "\u1680 \u205f"]
    fine = [" x", "x ", "\u200b", "\ufeff", "\x1f", "\x00", "-"]
    rows = _parse(spark, [json.dumps(make_event(event_id=text)).encode() for text in [*blank, *fine]])

    assert [(row["out_of_range"], row["bounds"]) for row in rows] == [("event_id", "blank")] * len(blank) + [(None, None)] * len(
        fine
    )
    assert [row["event"]["event_id"] for row in rows[len(blank) :]] == fine


def test_dead_letter_says_what_was_found(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = json.dumps(make_event()).encode()
    body = text[:-1]
    found = {
        "registry_frame:2": b"\x00\x00\x00\x00\x02" + text,
        "registry_frame:100001": b"\x00\x00\x01\x86\xa1" + text,
        "byte_order_mark": b"\xef\xbb\xbf" + text,
        "utf16": text.decode().encode("utf-16-le"),
        "utf32": text.decode().encode("utf-32-be"),
        "lz4": b"\x04\x22\x4d\x18" + text,
        "array": b" [" + text + b"]",
        "several_objects": text + b"\n" + text,
        "json_string": json.dumps(text.decode()).encode(),
        "json_number": b"-1.5",
        "json_literal": b" null\n",
        "not_json": b"hello",
        "cut": text[:-5],
        f"trailing_text:{len(text) + 1}": text + b"x",
        f"duplicate_key:{len(body) + 3}": body + b', "regi\\u006fn": "eu-west-1"}',
        f"not_a_number:{len(body) + 8}": body + b', "x": -Infinity}',
        f"bad_number:{len(body) + 8}": body + b', "x": 01}',
        "double_too_large:response_time_ms": text.replace(b"12.5", b"1e400"),
        "lone_surrogate:region": text.replace(b"eu-west-1", b"\\ud83d"),
        f"control_character:{text.index(b'eu-west-1') + 1}": text.replace(b"eu-west-1", b"\n"),
        f"bad_escape:{text.index(b'eu-west-1') + 1}": text.replace(b"eu-west-1", b"\\x41"),
        "too_deep": _deep(65, make_event()),
        f"syntax:{len(text) + 1}": body + b",}",
    }

    assert _details(spark, found.values()) == list(found)


def test_bytes_that_are_not_utf8_say_what_they_are(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = json.dumps(make_event(region="é")).encode()
    found: dict[bytes, str | None] = {
        gzip.compress(text): "gzip",
        b"\x28\xb5\x2f\xfd\x24\xff" + text: "zstd",
        b"\xff\x06\x00\x00sNaPpY\x00" + text: "snappy",
        b"\x82SNAPPY\x00\x00\x00" + text: "snappy",
        text.decode().encode("utf-16"): "utf16",
        text.decode().encode("utf-32"): "utf32",
        b"\x00\x00\x00\x00\x07\x02\xc3\x28": "registry_frame:7",
        text.decode().encode("latin-1").replace(b"eu-west-1", b"\xe9"): None,
        text[:-1] + b"\xff}": None,
    }
    rows = _parse(spark, found)

    assert [row["problem"] for row in rows[:8]] == ["invalid_utf8"] * 7 + [rows[7]["problem"]]
    assert [row["detail"] for row in rows] == list(found.values())


@pytest.fixture
def two_versions(spark: SparkSession, tmp_path: Path) -> str:
    """A catalog whose folder has version 1.0 and a 1.1 with a required field of its own and other bounds."""
    first = json.loads((PROJECT / "conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))
    second = {**first, "version": "1.1", "fields": [dict(field) for field in first["fields"]]}
    next(field for field in second["fields"] if field["name"] == "status_code")["maximum"] = 699
    second["fields"].append({"name": "cached", "type": "boolean", "required": True, "doc": "Served from a cache."})
    for schema in (first, second):
        (tmp_path / f"{schema['version']}.json").write_text(json.dumps(schema), encoding="utf-8")
    schemas = read_schemas(tmp_path)
    options = {
        "": "io.usagelakehouse.EventFunctions",
        ".fields": schemas.ddl(),
        ".schemas": schemas.rules(),
        ".max-bytes": "2000",
    }
    for option, value in options.items():
        spark.conf.set(f"spark.sql.catalog.two_versions{option}", value)
    return "two_versions"


def test_schema_version_picks_what_is_asked_of_the_event(
    spark: SparkSession, make_event: Callable[..., Row], two_versions: str
) -> None:
    events = [
        make_event(),
        make_event(schema_version="1.1"),
        make_event(schema_version="1.1", cached=True, status_code=650),
        make_event(status_code=650),
        make_event(schema_version="1.2", cached=True),
        make_event(schema_version="1.1", cached="yes"),
    ]
    rows = _parse(spark, [json.dumps(event).encode() for event in events], two_versions)

    assert [_field_errors(row) for row in rows] == [
        {},
        {"missing": "cached"},
        {},
        {"out_of_range": "status_code"},
        {"problem": "schema_not_found"},
        {"wrong_type": "cached"},
    ]
    assert [row["event"]["cached"] for row in rows] == [None, None, True, None, True, None]


def test_largest_size_is_the_setting(spark: SparkSession, make_event: Callable[..., Row], two_versions: str) -> None:
    text = json.dumps(make_event()).encode()

    rows = _parse(spark, [text + b" " * (2000 - len(text)), text + b" " * (2001 - len(text))], two_versions)

    assert [row["problem"] for row in rows] == [None, "oversize"]


def test_time_for_the_watermark_is_read_from_any_bytes(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = json.dumps(make_event()).encode()
    nothing = -(2**63)
    at = int(datetime(2026, 1, 28, 10, tzinfo=UTC).timestamp() * 1_000_000)
    values = {
        text: at,
        json.dumps(make_event(), indent=2).encode(): at,
        text.replace(b"10:00:00Z", b"12:00:00.5+02:00"): at + 500_000,
        json.dumps({"region": 'x"event_timestamp":"y', **make_event()}).encode(): at,
        text.replace(b"T10:00:00Z", b" 12:00+02"): at,
        text.replace(b"2026-", b"2200-"): nothing,
        text.replace(b"2026-", b"0026-"): nothing,
        text.replace(b"event_timestamp", b"event_time"): nothing,
        text.replace(b'"2026-01-28T10:00:00Z"', b"1769594400"): nothing,
        text.replace(b"2026-01-28T10:00:00Z", b"yesterday"): nothing,
        text[: text.index(b"T10:00")]: nothing,
        b'{"event_timestamp"': nothing,
        b'{"event_timestamp":': nothing,
        text[: text.index(b"customer_id")]: at,
        b'{"x": {"event_timestamp": "2020-01-01T00:00:00Z"}, ' + text[1:]: at,
        b'{"x": ["event_timestamp", "2020-01-01T00:00:00Z"], ' + text[1:]: at,
        b'{"x": "event_timestamp", "y": "\\\\", ' + text[1:]: at,
        b"": nothing,
        b"\xff": nothing,
        b"[1]": nothing,
        b'{"event_timestamp": 5}': nothing,
        b'{"event_timestamp": "x"}': nothing,
        b'{"x": "\\': nothing,
        b"{}": nothing,
    }
    table = pa.table({"i": range(len(values) + 1), "value": pa.array([*values, None], pa.binary())})
    found = spark.createDataFrame(table).selectExpr("i", "events.time(value) AS t").orderBy("i").collect()

    assert [row["t"] for row in found] == [*values.values(), nothing]
