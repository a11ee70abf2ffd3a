"""Breaks the text of an event's record: what is left is empty, no UTF-8, or no strict JSON object."""

from __future__ import annotations

import json

from lakehouse.local.event_text import Fields, encode
from lakehouse.local.malformed_kind import Malformed

_INVALID_UTF8, _EMPTY, _MALFORMED_JSON = "SLV-002", "SLV-003", "SLV-004"


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


def _raw(fields: Fields, name: str, literal: str) -> bytes:
    return encode({**fields, name: "@raw@"}).replace(b'"@raw@"', literal.encode())


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


TEXT_KINDS = (
    Malformed("malformed_cut", _MALFORMED_JSON, _cut),
    Malformed("malformed_trailing", _MALFORMED_JSON, _trailing),
    Malformed("malformed_nan", _MALFORMED_JSON, _not_a_number),
    Malformed("malformed_overflow_double", _MALFORMED_JSON, _overflow_double),
    Malformed("malformed_duplicate_key", _MALFORMED_JSON, _duplicate_key),
    Malformed("malformed_syntax", _MALFORMED_JSON, _syntax),
    Malformed("malformed_too_deep", _MALFORMED_JSON, _too_deep),
    Malformed("malformed_not_an_object", _MALFORMED_JSON, _not_an_object),
    Malformed("malformed_utf16", _MALFORMED_JSON, _utf16),
    Malformed("malformed_framed", _MALFORMED_JSON, _framed),
    Malformed("malformed_utf8", _INVALID_UTF8, _bad_utf8),
    Malformed("malformed_empty", _EMPTY, _empty),
    Malformed("malformed_whitespace", _EMPTY, _whitespace),
)
