"""Valid events written as few producers write them: a strict reader must take them, and read the same fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

from lakehouse.local.event_text import Fields, encode, message
from lakehouse.proof.event_rows import Rows


def rewrite_event(rows: Rows, at: int, pick: int) -> None:
    """Write the event of row `at` in an unusual way; `pick` chooses which."""
    kind, rule, write = WAYS[pick % len(WAYS)]
    rows.kind[at], rows.rule[at] = kind, rule
    if write is _foreign_text:
        rows.endpoint[at] = f"/v1/größe/検索/{pick % 1000}/🚀"
    fields = message(rows.event(at))
    rows.value[at] = write(fields, pick // len(WAYS))


def _unknown_scalar(fields: Fields, pick: int) -> bytes:
    return encode({**fields, "trace_id": f"{pick:016x}"})


def _unknown_object(fields: Fields, pick: int) -> bytes:
    return encode({"gateway": {"name": f"gw-{pick % 10}", "hops": [1, 2, {"event_id": "not this one"}]}, **fields})


def _unknown_deep(fields: Fields, _pick: int) -> bytes:
    """Nest as deep as is still allowed: 63 arrays in the object."""
    return encode(fields)[:-1] + b',"nested":' + b"[" * 63 + b"]" * 63 + b"}"


def _pretty(fields: Fields, pick: int) -> bytes:
    return b"\r\n\t" * (pick % 2) + json.dumps(fields, indent=2).encode() + b" \n" * (pick % 3)


def _reordered(fields: Fields, _pick: int) -> bytes:
    return encode(dict(sorted(fields.items(), reverse=True)))


def _escaped(fields: Fields, _pick: int) -> bytes:
    r"""Write every character of the names and of the endpoint as \uXXXX."""
    text = encode({**fields, "endpoint": "@"}).decode()
    for name in ("event_id", "endpoint", "schema_version"):
        text = text.replace(f'"{name}"', f'"{_unicode(name)}"')
    return text.replace('"@"', f'"{_unicode(fields["endpoint"])}"').encode()


def _foreign_text(fields: Fields, pick: int) -> bytes:
    return encode(fields) if pick % 2 else json.dumps(fields).encode()


def _with_offset(fields: Fields, pick: int) -> bytes:
    at = datetime.fromisoformat(fields["event_timestamp"]).astimezone(UTC)
    zone = timezone(timedelta(minutes=(-480, -210, 0, 120, 330, 765)[pick % 6]))
    return encode({**fields, "event_timestamp": at.astimezone(zone).isoformat(timespec="microseconds")})


def _exponent(fields: Fields, _pick: int) -> bytes:
    latency = fields["response_time_ms"]
    text = encode({**fields, "response_time_ms": "@"}).decode()
    return text.replace('"@"', "null" if latency is None else f"{latency:.17e}").encode()


def _whole_with_point(fields: Fields, pick: int) -> bytes:
    """Write whole numbers as languages do that have doubles only."""
    names = ("status_code", "request_bytes", "response_bytes")
    text = encode({**fields, **{name: f"@{name}@" for name in names}}).decode()
    for name in names:
        number = fields[name]
        forms = (f"{number}.0", f"{number}e0", f"{number * 1000}E-3", f"{number}.000")
        text = text.replace(f'"@{name}@"', forms[pick % len(forms)])
    return text.encode()


def _other_instant(fields: Fields, pick: int) -> bytes:
    """Write the instant in the other forms that have one meaning."""
    stamp = str(fields["event_timestamp"]).removesuffix("Z")
    forms = (stamp + "+0000", stamp + "+00", stamp.replace("T", " ") + "Z", stamp.lower() + "z", stamp + "-00:00")
    return encode({**fields, "event_timestamp": forms[pick % len(forms)]})


def _absent_optionals(fields: Fields, _pick: int) -> bytes:
    return encode({name: value for name, value in fields.items() if value is not None})


def _unicode(text: str) -> str:
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


WAYS: tuple[tuple[str, str | None, Callable[[Fields, int], bytes]], ...] = (
    ("unknown_field", "SLV-102", _unknown_scalar),
    ("unknown_field", "SLV-102", _unknown_object),
    ("unknown_field_deep", "SLV-102", _unknown_deep),
    ("unusual_whitespace", None, _pretty),
    ("unusual_order", None, _reordered),
    ("unusual_escapes", None, _escaped),
    ("unusual_text", None, _foreign_text),
    ("unusual_offset", None, _with_offset),
    ("unusual_offset", None, _other_instant),
    ("unusual_number", None, _exponent),
    ("unusual_number", None, _whole_with_point),
    ("unusual_absent", None, _absent_optionals),
)
"""Kind, warning and writer of each way."""
