"""Parses a record's value as one JSON object, more strictly than Python does: RFC 8259, and the grammar's limit of depth.

It is the checker's own reading, on purpose: `strict_reader.py` says why.
"""

from __future__ import annotations

import json
from typing import Any

_MAX_DEPTH = 64


class Number:
    """A number as it is written: what no field asks for is never converted."""

    __slots__ = ("text",)  # there are several in each record

    def __init__(self, text: str) -> None:
        self.text = text


def strict_object(value: bytes) -> dict[str, Any]:
    """Parse `value` as one JSON object with each number as a `Number`; half a surrogate pair stays in strings as it is.

    Raises ValueError (RecursionError when very deep) for bytes that are not UTF-8, text around the object, duplicate names,
    NaN, Infinity, more than 64 levels, and anything else that is laxer than RFC 8259.
    """
    parsed = _DECODER.decode(value.decode("utf-8"))
    if not isinstance(parsed, dict):
        raise ValueError
    if value.count(b"{") + value.count(b"[") > _MAX_DEPTH:
        _check_depth(parsed, 1)
    return parsed


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_refuse, parse_float=Number, parse_int=Number)


def _check_depth(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth > _MAX_DEPTH:
            raise ValueError
        for child in value.values() if isinstance(value, dict) else value:
            _check_depth(child, depth + 1)
