"""Records that no reader may take for an event, each kind with the one rule it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lakehouse.local.event_text import encode, message
from lakehouse.proof.event_rows import Rows

Fields = dict[str, Any]

OVERSIZE, INVALID_UTF8, EMPTY, MALFORMED_JSON = "SLV-001", "SLV-002", "SLV-003", "SLV-004"
SCHEMA_NOT_FOUND, MISSING_FIELD, WRONG_TYPE, OUT_OF_RANGE = "SLV-005", "SLV-006", "SLV-007", "SLV-008"
_OVERSIZE_EVERY = 200
"""Oversized records are large; so few that they do not drown the rest."""
_OVERSIZE_MOST = 900_000
"""A Kafka record of a megabyte is refused by the broker's default."""
_REQUIRED = "event_id event_timestamp customer_id api_key_id endpoint method status_code request_bytes response_bytes".split()


@dataclass(frozen=True)
class Malformed:
    """A kind of broken record: its rule and how to break a valid event (its JSON fields) in one of its ways (`pick`)."""

    kind: str
    rule: str
    break_: Callable[[Fields, int], bytes]


def break_event(rows: Rows, at: int, pick: int, max_event_bytes: int) -> None:
    """Replace the event of row `at` by a broken record; `pick` chooses how."""
    fields = message(rows.event(at))
    if pick % _OVERSIZE_EVERY == 0 and max_event_bytes < _OVERSIZE_MOST:
        kind, rule, value = "malformed_oversize", OVERSIZE, oversize(fields, max_event_bytes)
    else:
        way = KINDS[pick // _OVERSIZE_EVERY % len(KINDS)]
        kind, rule, value = way.kind, way.rule, way.break_(fields, pick // (_OVERSIZE_EVERY * len(KINDS)))
    rows.kind[at], rows.value[at] = kind, value
    rows.set_rejected(at, "dead_letter", rule)


def oversize(fields: Fields, max_event_bytes: int) -> bytes:
    """Pad a valid event with an unknown field until it is one byte over the limit."""
    bare = len(encode({**fields, "padding": ""}))
    return encode({**fields, "padding": "x" * (max_event_bytes + 1 - bare)})


def _cut(fields: Fields, pick: int) -> bytes:
    text = encode(fields)
    return text[: 1 + pick % (len(text) - 1)]


def _trailing(fields: Fields, pick: int) -> bytes:
    text = encode(fields)
    return text + (b"x", b"}", b",", text, b" {}", b"null", b"\x00")[pick % 7]


def _not_a_number(fields: Fields, pick: int) -> bytes:
    return _raw(fields, "response_time_ms", ("NaN", "Infinity", "-Infinity")[pick % 3])


def _overflow_double(fields: Fields, pick: int) -> bytes:
    return _raw(fields, "response_time_ms", ("1e400", "-1e400", "9" * 400)[pick % 3])


def _duplicate_key(fields: Fields, pick: int) -> bytes:
    extra = (
        f'"event_id":"{fields["event_id"]}"',
        '"status_code":200',
        '"trace":1,"trace":2',
        '"event\\u005fid":"other"',
    )[pick % 4]
    return encode(fields)[:-1] + b"," + extra.encode() + b"}"


def _syntax(fields: Fields, pick: int) -> bytes:
    text = encode(fields)
    return (
        text.replace(b'"', b"'"),
        text[:-1] + b",}",
        text.replace(b'"status_code":', b'"status_code":0'),
        text.replace(b'"method":"', b'"method":"\x01'),
        b"/* comment */" + text,
        text.replace(b'"status_code":', b"status_code:"),
        text.replace(b'"endpoint":"', b'"endpoint":"\\x'),
    )[pick % 7]


def _too_deep(fields: Fields, pick: int) -> bytes:
    depth = (64, 200, 5000)[pick % 3]
    opening, closing = ((b"[", b"]"), (b'{"a":', b"}"))[pick // 3 % 2]
    return encode(fields)[:-1] + b',"nested":' + opening * depth + b"1" + closing * depth + b"}"


def _framed(fields: Fields, pick: int) -> bytes:
    """What serializers and pipes put before or around an event."""
    text = encode(fields)
    return (
        b"\x00\x00\x00\x00" + bytes((pick % 128,)) + text,
        b"\xef\xbb\xbf" + text,
        text + b"\n" + text,
        json.dumps(text.decode()).encode(),
    )[pick % 4]


def _not_an_object(fields: Fields, pick: int) -> bytes:
    text = encode(fields)
    return (b"[" + text + b"]", b"[]", b"null", b"true", b"42", encode({"": fields["event_id"]})[4:-1], b"event")[pick % 7]


def _utf16(fields: Fields, pick: int) -> bytes:
    """JSON is UTF-8; some parsers guess other encodings from zero bytes."""
    return encode(fields).decode().encode(("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")[pick % 4])


def _bad_utf8(fields: Fields, pick: int) -> bytes:
    """A stray byte, a cut sequence, an overlong slash, a surrogate, beyond U+10FFFF; in a value, a name, or after the end."""
    bad = (b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82")[pick % 6]
    text = encode(fields)
    return (
        text.replace(b'"endpoint":"', b'"endpoint":"' + bad),
        text[:-1] + b',"' + bad + b'":1}',
        text + bad,
    )[pick // 6 % 3]


def _empty(_fields: Fields, _pick: int) -> bytes:
    return b""


def _whitespace(_fields: Fields, pick: int) -> bytes:
    return (b" ", b"\n", b"\r\n", b" \t\r\n " * 20)[pick % 4]


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


def _raw(fields: Fields, name: str, literal: str) -> bytes:
    return encode({**fields, name: "@raw@"}).replace(b'"@raw@"', literal.encode())


KINDS = (
    Malformed("malformed_cut", MALFORMED_JSON, _cut),
    Malformed("malformed_trailing", MALFORMED_JSON, _trailing),
    Malformed("malformed_nan", MALFORMED_JSON, _not_a_number),
    Malformed("malformed_overflow_double", MALFORMED_JSON, _overflow_double),
    Malformed("malformed_duplicate_key", MALFORMED_JSON, _duplicate_key),
    Malformed("malformed_syntax", MALFORMED_JSON, _syntax),
    Malformed("malformed_too_deep", MALFORMED_JSON, _too_deep),
    Malformed("malformed_not_an_object", MALFORMED_JSON, _not_an_object),
    Malformed("malformed_utf16", MALFORMED_JSON, _utf16),
    Malformed("malformed_framed", MALFORMED_JSON, _framed),
    Malformed("malformed_utf8", INVALID_UTF8, _bad_utf8),
    Malformed("malformed_empty", EMPTY, _empty),
    Malformed("malformed_whitespace", EMPTY, _whitespace),
    Malformed("malformed_unknown_version", SCHEMA_NOT_FOUND, _unknown_version),
    Malformed("malformed_no_version", SCHEMA_NOT_FOUND, _no_version),
    Malformed("malformed_missing_field", MISSING_FIELD, _missing),
    Malformed("malformed_null", MISSING_FIELD, _null),
    Malformed("malformed_wrong_type", WRONG_TYPE, _wrong_type),
    Malformed("malformed_overflow", WRONG_TYPE, _overflow),
    Malformed("malformed_bad_timestamp", WRONG_TYPE, _bad_timestamp),
    Malformed("malformed_out_of_range", OUT_OF_RANGE, _out_of_range),
)
