"""An independent judge of record values, for the generator's tests: Python's own parsers and the schema file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.lake.resources import PROJECT

SCHEMA = json.loads((PROJECT / "conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))
FIELDS = {field["name"]: field for field in SCHEMA["fields"]}
INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d(:?\d\d)?)", re.ASCII)
FIRST, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
BOUNDS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}

Judgement = tuple[set[str], dict[str, Any] | None]
"""Ids of the rejecting rules that the value breaks, and its fields where it is a JSON object."""


def judge_value(value: bytes, max_event_bytes: int = 262_144) -> Judgement:
    """Say which rules the value breaks; no rule: it is an event."""
    if len(value) > max_event_bytes:
        return {"SLV-001"}, None
    try:
        text = value.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return {"SLV-002"}, None
    if not text.strip(" \t\r\n"):
        return {"SLV-003"}, None
    fields = _json_object(text)
    if fields is None:
        return {"SLV-004"}, None
    if fields.get("schema_version") != SCHEMA["version"]:
        return {"SLV-005"}, fields
    return set(_field_problems(fields)), fields


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_number)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and _depth(fields) <= 64 else None


def _field_problems(fields: dict[str, Any]) -> Iterator[str]:
    for name, field in FIELDS.items():
        value = fields.get(name)
        if value is None:
            if field["required"]:
                yield "SLV-006"
        elif not _has_type(value, field["type"]):
            yield "SLV-007"
        elif not _in_range(value, field):
            yield "SLV-008"


def _has_type(value: Any, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "timestamp":
        return isinstance(value, str) and INSTANT.fullmatch(value) is not None and _is_instant(value)
    if isinstance(value, bool):
        return False
    if kind == "double":
        return isinstance(value, int | float)
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return is_whole and bool(BOUNDS[kind][0] <= value <= BOUNDS[kind][1])


def _is_instant(text: str) -> bool:
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return True


def _in_range(value: Any, field: dict[str, Any]) -> bool:
    if field["type"] == "timestamp":
        return FIRST <= datetime.fromisoformat(value.upper()) < END
    if isinstance(value, str):
        if field.get("min_length", 0) > 0 and not value.strip():
            return False
        return field.get("min_length", 0) <= len(value) <= field.get("max_length", 10**9) and value in field.get("enum", [value])
    return bool(field.get("minimum", -math.inf) <= value <= field.get("maximum", math.inf))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _finite(text: str) -> float:
    if math.isinf(float(text)):
        raise ValueError
    return float(text)


def _number(text: str) -> int:
    _finite(text)
    return int(text)


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deepest += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return deepest


@pytest.fixture(scope="session")
def judge() -> Callable[..., Judgement]:
    return judge_value
