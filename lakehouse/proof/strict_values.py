"""Checks a field's JSON value against type and bounds, and turns it into the column's value.

It is the checker's own reading, on purpose: `strict_reader.py` says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from math import inf, isfinite
from typing import Any

from lakehouse.proof.strict_json import Number

WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's property White_Space; str.isspace means another set."""
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:\.(\d{1,9}))?)?"
    r"(?:[Zz]|([+-])(0\d|1[0-8])(?::?([0-5]\d))?)",
    re.ASCII,
)
_INTEGERS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_LONGEST_INTEGER = 19
_LONGEST_EXPONENT = 18
"""Digits; a longer one is beyond what the digits of any value make up for."""

# The lake's range: the checker's own numbers, which no schema file widens.
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST_INSTANT, _END_INSTANT = 0, (date(2200, 1, 1).toordinal() - _EPOCH) * 86_400_000_000
_SUMMED = {"request_bytes": (0, 34_359_738_367), "response_bytes": (0, 34_359_738_367)}

Check = Callable[[Any], Any]
"""Turns a JSON value into the column's value; raises ValueError where it does not fit."""


def field_check(field: dict[str, Any]) -> Check:
    """Make the check of a field from its entry in a schema file."""
    kind = field["type"]
    if kind == "timestamp":
        return _held_instant
    if kind == "string":
        return _text(field)
    if kind == "boolean":
        return _boolean
    low, high = field.get("minimum"), field.get("maximum")
    least, greatest = _SUMMED.get(field["name"], (-inf, inf))
    low, high = max(least, -inf if low is None else low), min(greatest, inf if high is None else high)
    if kind == "double":
        return _double(_nearest(low), _nearest(high))
    first, last = _INTEGERS[kind]
    return _integer(max(first, low), min(last, high))


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _text(field: dict[str, Any]) -> Check:
    shortest, longest = field.get("min_length") or 0, field.get("max_length")
    longest = inf if longest is None else longest
    allowed = frozenset(field.get("enum") or ())

    def check(value: Any) -> str:
        if type(value) is not str or not shortest <= len(value) <= longest or (allowed and value not in allowed):
            raise ValueError
        if value.isascii() and value[:1] > " ":
            return value  # neither blank nor with half a pair: nearly all texts
        if (shortest > 0 and not value.strip(WHITE_SPACE)) or has_half_pair(value):
            raise ValueError
        return value

    return check


def has_half_pair(text: str) -> bool:
    """Whether the text holds half a surrogate pair: no UTF-8 can store it."""
    return _HALF_PAIR.search(text) is not None


def _nearest(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def _double(low: float, high: float) -> Check:
    def check(value: Any) -> float:
        if type(value) is not Number:
            raise ValueError
        number = float(value.text) + 0.0  # zero has no sign
        if not isfinite(number) or not low <= number <= high:
            raise ValueError
        return number

    return check


def _integer(low: float, high: float) -> Check:
    def check(value: Any) -> int:
        if type(value) is not Number:
            raise ValueError
        number = whole(value.text)
        if not low <= number <= high:
            raise ValueError
        return number

    return check


def whole(text: str) -> int:
    """The whole number that a JSON number is, however it is written; raises ValueError for a fraction or too many digits."""
    if text.isdecimal() and len(text) <= _LONGEST_INTEGER:
        return int(text)
    mantissa, _, exponent = text.lower().partition("e")
    units, _, fraction = mantissa.partition(".")
    digits = units.lstrip("-") + fraction
    significant = digits.rstrip("0")
    power = _exponent(exponent) - len(fraction) + len(digits) - len(significant)
    significant = significant.lstrip("0")
    if not significant:
        return 0
    if power < 0 or len(significant) + power > _LONGEST_INTEGER:
        msg = "no whole number of 19 digits"
        raise ValueError(msg)
    number = int(significant + "0" * power)
    return -number if text.startswith("-") else number


def _exponent(text: str) -> int:
    digits = text.lstrip("+-").lstrip("0")
    number = int(digits or "0") if len(digits) <= _LONGEST_EXPONENT else 10**_LONGEST_EXPONENT
    return -number if text.startswith("-") else number


def microseconds(value: Any) -> int:
    """Microseconds since the epoch of an instant with Z or an offset up to 18 h; a longer fraction is cut."""
    match = _INSTANT.fullmatch(value) if type(value) is str else None
    if match is None:
        raise ValueError
    day, hour, minute, second, fraction, sign, hours, minutes = match.groups()
    seconds = (date.fromisoformat(day).toordinal() - _EPOCH) * 86_400 + int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if sign:
        offset = int(hours) * 3600 + int(minutes or 0) * 60
        seconds += offset if sign == "-" else -offset
    return seconds * 1_000_000 + (int(fraction.ljust(6, "0")[:6]) if fraction else 0)


def _held_instant(value: Any) -> int:
    instant = microseconds(value)
    if not _FIRST_INSTANT <= instant < _END_INSTANT:
        raise ValueError
    return instant
