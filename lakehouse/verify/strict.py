"""A second, independent reading of an event: strict JSON by Python's parser, the schema file's own bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from pipelines.common.opening import files_in, read_text

_MAX_DEPTH = 64
_BLANK = b" \t\r\n"
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_INTEGERS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Check = Callable[[Any], Any]
"""Turns a JSON value into the column's value; raises ValueError where it does not fit."""


@dataclass(frozen=True)
class StrictReader:
    """Reads record values as events; `columns` are returned in this order."""

    versions: dict[str, dict[str, tuple[bool, Check]]]
    columns: tuple[str, ...]
    max_bytes: int

    @staticmethod
    def from_files(folder: Path, columns: tuple[str, ...], max_bytes: int) -> StrictReader:
        """Make a reader from the schema versions in `folder`."""
        schemas = _read_files(folder)
        # A field that the message's version does not have is read all the same where another version has it.
        others = {name: (False, _check({"type": kind})) for name, kind in field_types(folder).items()}
        versions = {
            schema["version"]: others | {field["name"]: (field["required"], _check(field)) for field in schema["fields"]}
            for schema in schemas
        }
        return StrictReader(versions, columns, max_bytes)

    def read(self, value: bytes) -> tuple[Any, ...] | None:
        """The event's columns, timestamps in microseconds since the epoch; None where a rule rejects the value."""
        if len(value) > self.max_bytes or not value.strip(_BLANK):
            return None
        try:
            event = strict_object(value)
            version = event.get("schema_version")
            fields = self.versions.get(version) if isinstance(version, str) else None
            if fields is None:
                return None
            read = {}
            for name, (required, check) in fields.items():
                found = event.get(name)
                if found is not None:
                    read[name] = check(found)
                elif required:
                    return None
        except (ValueError, RecursionError, OverflowError):
            return None
        return tuple(read.get(name) for name in self.columns)


def field_types(folder: Path) -> dict[str, str]:
    """Names and types of all fields that any schema version in `folder` has."""
    return {field["name"]: field["type"] for schema in _read_files(folder) for field in schema["fields"]}


def _read_files(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(read_text(path)) for path in files_in(folder, "*.json")]


def strict_object(value: bytes) -> dict[str, Any]:
    """Parse `value` as one JSON object; raises ValueError (RecursionError when very deep) for anything laxer than RFC 8259.

    Refused: bytes that are not UTF-8, text after the object, duplicate keys, NaN, Infinity, numbers beyond a double,
    lone surrogates, more than 64 levels.
    """
    parsed = _DECODER.decode(value.decode("utf-8"))
    if not isinstance(parsed, dict):
        raise ValueError
    if value.count(b"{") + value.count(b"[") > _MAX_DEPTH:
        _check_depth(parsed, 1)
    if b"\\u" in value:
        # An escaped half of a surrogate pair is no character, and cannot be stored as UTF-8.
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    return parsed


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_refuse, parse_float=_finite)


def _check_depth(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth > _MAX_DEPTH:
            raise ValueError
        for child in value.values() if isinstance(value, dict) else value:
            _check_depth(child, depth + 1)


def _check(field: dict[str, Any]) -> Check:
    kind = field["type"]
    if kind == "timestamp":
        return microseconds
    if kind == "string":
        return _text(field)
    if kind == "boolean":
        return _boolean
    low, high = _INTEGERS.get(kind, (float("-inf"), float("inf")))
    return _number(kind == "double", max(low, field.get("minimum", low)), min(high, field.get("maximum", high)))


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _text(field: dict[str, Any]) -> Check:
    shortest, longest = field.get("min_length", 0), field.get("max_length", float("inf"))
    allowed = frozenset(field["enum"]) if "enum" in field else None

    def check(value: Any) -> str:
        if type(value) is not str or not shortest <= len(value) <= longest or (allowed is not None and value not in allowed):
            raise ValueError
        return value

    return check


def _number(double: bool, low: float, high: float) -> Check:
    def check(value: Any) -> float:
        # `type`, not isinstance: True is an int in Python.
        if not (type(value) is int or (double and type(value) is float)) or not low <= value <= high:
            raise ValueError
        return float(value) if double else value

    return check


_FIRST_SECOND = (datetime(1, 1, 3, tzinfo=UTC) - _EPOCH).days * 86_400
_END_SECOND = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH).days * 86_400


def microseconds(value: Any) -> int:
    """Microseconds since the epoch of an ISO 8601 instant with Z or an offset up to 18 h; a longer fraction is cut."""
    match = _INSTANT.fullmatch(value) if type(value) is str else None
    if match is None:
        raise ValueError
    seconds, fraction, sign, hours, minutes = match.groups()
    elapsed = datetime.fromisoformat(seconds + "+00:00") - _EPOCH
    offset = 0
    if sign:
        if int(hours) > 18 or int(minutes) > 59:
            raise ValueError
        offset = (int(hours) * 3600 + int(minutes) * 60) * (1 if sign == "+" else -1)
    micros = int((fraction or "0").ljust(6, "0")[:6])
    instant = elapsed.days * 86_400 + elapsed.seconds - offset
    if not _FIRST_SECOND <= instant < _END_SECOND:
        raise ValueError
    return instant * 1_000_000 + micros
