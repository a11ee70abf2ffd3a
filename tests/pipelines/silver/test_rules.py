"""Rules: ids and sentences that code, table and playbooks share; a sentence names fields and never shows a value."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from pipelines.lake.settings import SilverSettings
from pipelines.runtime.kafka_columns import with_kafka_ms
from pipelines.silver.rules import MALFORMED, any_failed, failed_ids, failed_sentences, rejecting_rules, warning_rules
from pipelines.silver.transforms import parse_events

Row = dict[str, Any]
KAFKA = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
SECRET = "s3cr3t-värde"  # noqa: S105  # a marker that no sentence may hold
_SILVER = SilverSettings()


def _parsed(spark: SparkSession, *values: bytes | None) -> DataFrame:
    columns = {"i": range(len(values)), "_raw_value": pa.array(values, pa.binary())}
    table = pa.table({**columns, "_kafka_timestamp": pa.array([KAFKA] * len(values), pa.timestamp("us", tz="UTC"))})
    return parse_events(with_kafka_ms(spark.createDataFrame(table))).orderBy("i")


def _bytes(event: Row) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


@pytest.mark.usefixtures("spark")
def test_ids_and_names_are_unique_and_well_formed() -> None:
    rules = [*rejecting_rules(), *warning_rules(_SILVER)]

    assert len({rule.id for rule in rules}) == len({rule.name for rule in rules}) == len(rules)
    assert all(re.fullmatch(r"SLV-0\d\d", rule.id) for rule in rejecting_rules())
    assert all(re.fullmatch(r"SLV-1\d\d", rule.id) for rule in warning_rules(_SILVER))


def test_fine_events_and_tombstones_fail_no_rule(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    rules = [*rejecting_rules(), *warning_rules(_SILVER)]
    frame = _parsed(spark, _bytes(make_event()), None)
    sentences = frame.select(*(rule.sentence.alias(rule.id) for rule in rules)).collect()
    verdicts = frame.select(any_failed(rules).alias("any"), failed_ids(rules).alias("ids")).collect()

    assert [row.asDict() for row in sentences] == [dict.fromkeys(rule.id for rule in rules)] * 2
    assert [(row["any"], row["ids"]) for row in verdicts] == [(False, []), (False, [])]


def test_each_fault_has_its_rule(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    faults: dict[bytes | None, list[str]] = {
        b" " * 300_000: ["SLV-001"],
        b"\xff": ["SLV-002"],
        b"": ["SLV-003"],
        b"{": ["SLV-004"],
        _bytes(make_event(schema_version="9")): ["SLV-005"],
        _bytes(make_event(schema_version=..., method=3)): ["SLV-005", "SLV-007"],
        _bytes(make_event(event_id=...)): ["SLV-006"],
        _bytes(make_event(status_code="200")): ["SLV-007"],
        _bytes(make_event(status_code=99)): ["SLV-008"],
        _bytes(make_event(event_id=None, status_code="x", method="")): ["SLV-006", "SLV-007", "SLV-008"],
    }
    rows = _parsed(spark, *faults).select(failed_ids(rejecting_rules()).alias("ids")).collect()

    assert [row["ids"] for row in rows] == list(faults.values())


def test_sentences_name_fields_and_never_show_values(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    fields = [name for name in make_event() if name not in ("schema_version", "event_timestamp")]
    values = [
        *(_bytes(make_event(**{field: [SECRET]})) for field in fields),
        _bytes(make_event(**dict.fromkeys(fields, SECRET * 40))),
        _bytes(make_event(method=SECRET, event_timestamp=SECRET)),
        _bytes(make_event(schema_version=SECRET)),
        _bytes(make_event(customer_id=SECRET))[:-1],
        _bytes(make_event(customer_id=SECRET, event_id=...)),
        _bytes(make_event(**{SECRET: SECRET}, event_id=5)),
        SECRET.encode(),
        SECRET.encode("latin-1"),
        SECRET.encode() * 30_000,
    ]
    rows = _parsed(spark, *values).select(failed_sentences(rejecting_rules()).alias("text")).collect()

    assert all(re.match(r"SLV-00\d \w+: ", row["text"]) for row in rows)
    assert [field for field, row in zip(fields, rows, strict=False) if field not in row["text"]] == []
    assert [row["text"] for row in rows if "s3cr3t" in row["text"] or "rde" in row["text"]] == []


def test_sentences_say_the_cause(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    text = _bytes(make_event())
    causes = {
        b"\x00\x00\x00\x00\x2a" + text: "the frame of a schema registry (magic byte 0, schema id 42)",
        b"\x00\x00\x00\x00\x2a\xff\xff": "SLV-002 invalid_utf8: the value is not valid UTF-8: it begins with the frame",
        gzip.compress(text): "SLV-002 invalid_utf8: the value is not valid UTF-8: it is compressed by gzip",
        b"\xff": "SLV-002 invalid_utf8: the value is not valid UTF-8",
        b"[" + text + b"]": "object: it is a JSON array; send a record for each object",
        text + b"\n" + text: "another object follows the first",
        text + b"x": f"text follows the object, at byte {len(text) + 1}",
        _bytes(make_event(event_timestamp="2026-01-28T10:15:30", status_code=200.5)): (
            "SLV-007 wrong_type: event_timestamp holds no instant with an offset (such as 2026-01-28T10:15:30Z), "
            "status_code holds no whole number of 32 bits"
        ),
        _bytes(make_event(event_timestamp="2200-01-01T00:00Z", event_id=" ", method="get", request_bytes=2**35)): (
            "SLV-008 out_of_range: event_id is empty or blank, event_timestamp is no instant from 1970-01-01 to 2199-12-31, "
            "method is none of the values of its list, request_bytes is above its maximum"
        ),
    }
    rows = _parsed(spark, *causes).select(failed_sentences(rejecting_rules()).alias("text")).collect()

    assert [row["text"] for row, cause in zip(rows, causes.values(), strict=True) if cause not in row["text"]] == []


def test_every_code_has_a_sentence_and_a_code_without_one_fails_its_rule_all_the_same(spark: SparkSession) -> None:
    """A rule whose sentence would be NULL takes a broken record for an event."""
    codes = [*MALFORMED, "unheard_of:1", None]
    columns = {"i": range(len(codes)), "problem": ["malformed_json"] * len(codes), "detail": codes}
    nothing = ", ".join(f"cast(null AS string) AS {name}" for name in ("missing", "wrong_type", "expected", "bounds"))
    rules = rejecting_rules()
    frame = spark.createDataFrame(pa.table(columns)).selectExpr(
        "*", *nothing.split(", "), "CASE WHEN i = 0 THEN 'a,b' END AS out_of_range"
    )
    rows = frame.orderBy("i").select(failed_ids(rules).alias("ids"), failed_sentences(rules).alias("text")).collect()

    assert [row["ids"] for row in rows] == [["SLV-004", "SLV-008"], *[["SLV-004"]] * (len(codes) - 1)]
    plain = "SLV-004 malformed_json: the value is not one well-formed JSON object"
    assert [row["text"].startswith(f"{plain}: ") for row in rows] == [True] * len(MALFORMED) + [False, False]
    assert rows[-1]["text"] == plain
    assert rows[0]["text"].endswith("SLV-008 out_of_range: a,b")


def test_warnings_flag_at_their_bounds(spark: SparkSession, make_event: Callable[..., Row]) -> None:
    def value(seconds: float, **changes: Any) -> bytes:
        at = KAFKA + timedelta(seconds=seconds)
        return _bytes(make_event(event_timestamp=at.isoformat().replace("+00:00", "Z"), **changes))

    ten_years = 3653 * 86_400
    flags = {
        value(300): [],
        value(300.000001): ["SLV-101"],
        value(-ten_years): [],
        value(-ten_years - 0.000001): ["SLV-103"],
        value(301, extra=1): ["SLV-101", "SLV-102"],
    }
    frame = _parsed(spark, *flags)
    rows = frame.select(failed_ids(warning_rules(_SILVER)).alias("w"), any_failed(rejecting_rules()).alias("rejected")).collect()

    assert [row["w"] for row in rows] == list(flags.values())
    assert not any(row["rejected"] for row in rows)
