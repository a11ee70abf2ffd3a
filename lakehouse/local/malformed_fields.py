"""Breaks an event's fields: the record stays strict JSON, but its version, a type or a value fits no event schema."""

from __future__ import annotations

from lakehouse.local.event_text import Fields, encode
from lakehouse.local.malformed_kind import Malformed

_SCHEMA_NOT_FOUND, _MISSING_FIELD, _WRONG_TYPE, _OUT_OF_RANGE = "SLV-005", "SLV-006", "SLV-007", "SLV-008"
_REQUIRED = "event_id event_timestamp customer_id api_key_id endpoint method status_code request_bytes response_bytes".split()


def _unknown_version(fields: Fields, pick: int) -> bytes:
    return encode({**fields, "schema_version": ("0.9", "99.0", "1", "v1.0", "latest", "")[pick % 6]})


def _no_version(fields: Fields, pick: int) -> bytes:
    absent = {name: value for name, value in fields.items() if name != "schema_version"}
    return (encode(absent), encode({**absent, "schema_version": None}), b"{}")[pick % 3]


def _missing(fields: Fields, pick: int) -> bytes:
    gone = _REQUIRED[pick % len(_REQUIRED)]
    return encode({name: value for name, value in fields.items() if name != gone})


def _null(fields: Fields, pick: int) -> bytes:
    return encode({**fields, _REQUIRED[pick % len(_REQUIRED)]: None})


def _wrong_type(fields: Fields, pick: int) -> bytes:
    wrong: tuple[Fields, ...] = (
        {"status_code": "200"},
        {"status_code": True},
        {"status_code": 200.5},
        {"request_bytes": 1.5},
        {"response_bytes": [1]},
        {"response_time_ms": "12.5"},
        {"response_time_ms": False},
        {"customer_id": 42},
        {"api_key_id": {"id": "key"}},
        {"endpoint": ["/v1"]},
        {"method": True},
        {"region": 7},
        {"event_id": 17},
    )
    return encode({**fields, **wrong[pick % len(wrong)]})


def _overflow(fields: Fields, pick: int) -> bytes:
    wrong = (
        {"status_code": 2**31},
        {"status_code": -(2**31) - 1},
        {"status_code": 2**32 + 200},
        {"response_bytes": 2**63},
        {"request_bytes": 10**30},
    )
    return encode({**fields, **wrong[pick % len(wrong)]})


def _bad_timestamp(fields: Fields, pick: int) -> bytes:
    stamp = str(fields["event_timestamp"])
    wrong = (
        stamp.removesuffix("Z"),
        "2026-02-30T10:00:00.000Z",
        1_767_225_600,
        stamp[:10],
        stamp.replace("T", "_"),
        "yesterday",
        "",
        stamp[:11] + "25" + stamp[13:],
        stamp[:11] + "12:61" + stamp[16:],
    )
    return encode({**fields, "event_timestamp": wrong[pick % len(wrong)]})


def _out_of_range(fields: Fields, pick: int) -> bytes:
    wrong: tuple[Fields, ...] = (
        {"status_code": 42},
        {"status_code": 600},
        {"request_bytes": -1},
        {"response_bytes": -(2**63)},
        {"response_bytes": 2**35},
        {"request_bytes": 2**63 - 1},
        {"response_time_ms": -0.1},
        {"method": "BREW"},
        {"method": "get"},
        {"customer_id": ""},
        {"event_id": ""},
        {"customer_id": "c" * 129},
        {"endpoint": "/" + "e" * 2048},
        {"region": ""},
        {"region": "r" * 65},
        {"event_id": "   "},
        {"customer_id": "\u2003\u00a0"},
        {"event_timestamp": "0026-01-28T10:00:00Z"},
        {"event_timestamp": "1969-12-31T23:59:59.999999Z"},
        {"event_timestamp": "2200-01-01T00:00:00Z"},
    )
    return encode({**fields, **wrong[pick % len(wrong)]})


FIELD_KINDS = (
    Malformed("malformed_unknown_version", _SCHEMA_NOT_FOUND, _unknown_version),
    Malformed("malformed_no_version", _SCHEMA_NOT_FOUND, _no_version),
    Malformed("malformed_missing_field", _MISSING_FIELD, _missing),
    Malformed("malformed_null", _MISSING_FIELD, _null),
    Malformed("malformed_wrong_type", _WRONG_TYPE, _wrong_type),
    Malformed("malformed_overflow", _WRONG_TYPE, _overflow),
    Malformed("malformed_bad_timestamp", _WRONG_TYPE, _bad_timestamp),
    Malformed("malformed_out_of_range", _OUT_OF_RANGE, _out_of_range),
)
