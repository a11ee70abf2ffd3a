"""The checker's own reading of an event is strict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.proof.strict_reader import StrictReader
from lakehouse.proof.strict_values import microseconds, whole
from pipelines.lake.resources import PROJECT

SCHEMAS = PROJECT / "conf/schemas/api_usage_events"
COLUMNS = ("event_id", "event_timestamp", "status_code", "response_time_ms", "region")
EVENT = {
    "event_id": "e1",
    "event_timestamp": "2026-01-28T10:15:30.123Z",
    "customer_id": "c",
    "api_key_id": "k",
    "endpoint": "/v1",
    "method": "GET",
    "status_code": 200,
    "response_time_ms": 12,
    "request_bytes": 1,
    "response_bytes": 2,
    "region": None,
    "schema_version": "1.0",
}


@pytest.fixture
def reader() -> StrictReader:
    return StrictReader.from_files(SCHEMAS, COLUMNS, max_bytes=10_000)


def _value(**changes: Any) -> bytes:
    return json.dumps({**EVENT, **changes}).encode()


def test_event_is_read_in_column_order(reader: StrictReader) -> None:
    event = reader.read(b" " + _value(unknown={"a": [1]}) + b"\n")
    assert event == ("e1", 1_769_595_330_123_000, 200, 12.0, None)
    assert isinstance(event[3], float)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" \n",
        b"null",
        b"[]",
        b"{}",
        _value()[:-1],
        _value() + b"x",
        _value() + _value(),
        _value()[:-1] + b',"event_id":"e1"}',
        _value()[:-1] + b',"x":{"a":1,"a":2}}',
        _value()[:-1] + b',"x":NaN}',
        _value(response_time_ms="@").replace(b'"@"', b"1e400"),
        _value()[:-1] + b',"x":01}',
        _value()[:-1] + b',"x":' + b"[" * 64 + b"]" * 64 + b"}",
        _value()[:-1] + b',"x":' + b"[" * 4000 + b"]" * 4000 + b"}",
        _value().replace(b"e1", b"\xff"),
        b"\xef\xbb\xbf" + _value(),
        _value().decode().encode("utf-16-le"),
        _value(event_id="\ud800"),
        _value(event_id="\u2003 \x85"),
        _value(padding="x" * 10_000),
        _value(schema_version="2.0"),
        _value(schema_version=None),
        _value(event_id=None),
        _value(event_id=""),
        _value(event_id="x" * 129),
        _value(status_code="200"),
        _value(status_code=True),
        _value(status_code=200.5),
        _value(request_bytes="@").replace(b'"@"', b"1e999999999999"),
        _value(request_bytes=2**35),
        _value(response_bytes=-1),
        _value(status_code=99),
        _value(request_bytes=2**63),
        _value(response_time_ms=-0.1),
        _value(response_time_ms="1"),
        _value(method="get"),
        _value(event_timestamp="2026-01-28T10:15:30"),
        _value(event_timestamp="1969-12-31T23:59:59Z"),
        _value(event_timestamp="2200-01-01T00:00:00Z"),
        _value(event_timestamp=1),
    ],
)
def test_what_is_no_event_is_refused(reader: StrictReader, value: bytes) -> None:
    assert reader.read(value) is None


def test_what_is_just_within_the_rules_is_an_event(reader: StrictReader) -> None:
    assert reader.read(_value()[:-1] + b',"x":' + b"[" * 63 + b"]" * 63 + b"}") is not None
    assert reader.read(_value(event_id="x" * 128, status_code=599, request_bytes=2**35 - 1)) is not None
    assert reader.read(_value(event_id="\U0001f600")) is not None
    assert reader.read(_value(event_timestamp="2199-12-31T23:59:59.999999Z")) is not None
    assert reader.read(_value()[:-1] + b',"x":1e400,"y":"\\ud83d","\\ud83d":' + b"7" * 5000 + b"}") is not None


@pytest.mark.parametrize("number", ["200", "200.0", "2e2", "2E+02", "20000e-2", "0.0002e6", "200." + "0" * 400])
def test_whole_number_is_read_however_it_is_written(reader: StrictReader, number: str) -> None:
    event = reader.read(_value(status_code="@").replace(b'"@"', number.encode()))
    assert event is not None
    assert (event[2], type(event[2])) == (200, int)


@given(st.integers(-(10**19), 10**19), st.integers(0, 30), st.sampled_from("eE"))
def test_whole_numbers_are_exact_in_every_form(number: int, zeros: int, mark: str) -> None:
    digits = str(number)
    forms = [f"{digits}.{'0' * (zeros + 1)}", f"{digits}{'0' * zeros}{mark}-{zeros}", f"{digits}{mark}0"]
    if abs(number) < 10**19:
        assert [whole(form) for form in forms] == [number] * 3
    with pytest.raises(ValueError, match="no whole number"):
        whole(f"{digits}.{'0' * zeros}1")


def test_bound_that_is_null_in_the_file_asks_nothing(tmp_path: Path) -> None:
    first = json.loads((SCHEMAS / "1.0.json").read_text(encoding="utf-8"))
    bounds = {"string": ("max_length",), "int": ("minimum", "maximum"), "long": ("minimum", "maximum")}
    for field in first["fields"]:
        field.update(dict.fromkeys(bounds.get(field["type"], ())))
        if "enum" in field:
            field["enum"] = []
    (tmp_path / "1.0.json").write_text(json.dumps(first), encoding="utf-8")
    free = StrictReader.from_files(tmp_path, COLUMNS, max_bytes=10_000)

    assert free.read(_value(status_code=-5, method="TRACE")) is not None
    assert free.read(_value(request_bytes=2**35)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001999Z", 1),
        ("1970-01-01T01:30:00+01:30", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1969-12-31T23:59:59.5Z", -500_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("2024-02-29t00:00z", 1_709_164_800_000_000),
        ("2024-02-29 01:00+01", 1_709_164_800_000_000),
        ("2024-02-28T23:00:00-0100", 1_709_164_800_000_000),
    ],
)
def test_instants_are_microseconds_since_the_epoch(text: str, expected: int) -> None:
    assert microseconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00Z",
        "2026-01-28T24:00:00Z",
        "2026-01-28_10:00:00Z",
        "2026-01-28T10:00:00",
        "2026-01-28T10Z",
        "2026-01-28T10:00:00,5Z",
        "2026-01-28T10:00:00+19:00",
        "٢026-01-28T10:00:00Z",
        "",
    ],
)
def test_what_is_no_instant_is_refused(reader: StrictReader, text: str) -> None:
    assert reader.read(_value(event_timestamp=text)) is None


def test_field_of_another_version_is_read_and_has_its_type(tmp_path: Path) -> None:
    first = json.loads((SCHEMAS / "1.0.json").read_text(encoding="utf-8"))
    cached = {"name": "cached", "type": "boolean", "required": True, "doc": "Served from a cache."}
    for schema in (first, {**first, "version": "1.1", "fields": [*first["fields"], cached]}):
        (tmp_path / f"{schema['version']}.json").write_text(json.dumps(schema), encoding="utf-8")
    both = StrictReader.from_files(tmp_path, ("event_id", "cached"), max_bytes=10_000)

    assert both.read(_value()) == ("e1", None)
    assert both.read(_value(cached=True)) == ("e1", True)
    assert both.read(_value(cached="yes")) is None
    assert both.read(_value(schema_version="1.1")) is None
