"""How the peer reads events: one SQL projection for the plain ones, a strict reader for the few others.

DuckDB's JSON functions are no validators either: they let duplicate keys (the first wins), NaN, Infinity, 1e400 and a
trailing comma pass. So the projection accepts a row only when it can prove it: valid JSON, no escapes, as many keys as
known fields, every raw token of its type and in its bounds. All other rows, about 1 %, go through `read_strictly`.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from pipelines.common.event_schema import EventField, EventSchema, EventSchemas

MAX_DEPTH = 64
OVERSIZE, INVALID_UTF8, EMPTY_VALUE, MALFORMED_JSON = "SLV-001", "SLV-002", "SLV-003", "SLV-004"
SCHEMA_NOT_FOUND, MISSING_FIELD, WRONG_TYPE, OUT_OF_RANGE = "SLV-005", "SLV-006", "SLV-007", "SLV-008"
BOUNDS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
SQL_TYPES = {
    "string": "VARCHAR",
    "int": "INTEGER",
    "long": "BIGINT",
    "double": "DOUBLE",
    "timestamp": "TIMESTAMP",
    "boolean": "BOOLEAN",
}
_BLANK = b" \t\n\r"
_NOT_BEFORE_END = b", \t\n\r"
"""A comma before the closing brace, perhaps behind white space, is what json_valid lets pass."""
_INSTANT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:(Z)|([+-])(\d\d):(\d\d))", re.ASCII)


class RejectedError(Exception):
    """Raised when a record is no event; holds the id of the rule that it breaks first."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        super().__init__(rule)


def fast_projection(schema: EventSchema, max_bytes: int) -> str:
    """SELECT over `batch` (columns `i`, `text` and the coordinates): the event's columns and `ok`.

    `ok` is true only for rows that are certainly events of `schema`, in a plain spelling; the others' columns mean nothing.
    """
    shape = json.dumps({field.name: "JSON" for field in schema.fields})
    columns = ",\n  ".join(f"{_value(field)} AS {field.name}" for field in schema.fields)
    optional = [field.name for field in schema.fields if not field.required]
    present = " + ".join(f"(j.{field.name} IS NOT NULL)::INT" for field in schema.fields)
    nulls = "".join(f" + (j.{name} IS NULL AND list_contains(keys, '{name}'))::INT" for name in optional)
    conditions = "\n  AND ".join(_condition(field, schema.version) for field in schema.fields)
    return f"""
SELECT i, kafka_partition, kafka_offset, kafka_timestamp,
  {columns},
  coalesce(len(keys) = {present}{nulls}
  AND {conditions}, false) AS ok
FROM (
  SELECT * EXCLUDE (text), json_transform(plain, '{shape}') AS j, json_keys(plain) AS keys
  FROM (
    SELECT *, CASE WHEN strlen(text) <= {max_bytes} AND NOT contains(text, '\\')
      AND suffix(text, '}}') AND {" AND ".join(f"NOT suffix(text, chr({code}) || '}}')" for code in _NOT_BEFORE_END)}
      AND json_valid(text) THEN text END AS plain
    FROM batch
  )
)"""  # noqa: S608  # names come from the project's schema file


def _value(field: EventField) -> str:
    raw = f"j.{field.name}"
    if field.type in ("string", "timestamp"):
        text = f"substr({raw}, 2, strlen({raw}) - 2)" if field.type == "timestamp" else f"substr({raw}, 2, length({raw}) - 2)"
        return text if field.type == "string" else f"TRY_CAST({text} AS TIMESTAMP)"
    return f"TRY_CAST({raw}::VARCHAR AS {SQL_TYPES[field.type]})"


def _condition(field: EventField, version: str) -> str:
    raw = f"j.{field.name}"
    checks: list[str] = []
    if field.name == "schema_version":
        return f"{raw} = '\"{version}\"'"
    if field.type == "string":
        checks.append(f"starts_with({raw}, '\"')")
        if field.enum is not None:
            checks.append(f"{raw} IN ({', '.join(_quoted(value) for value in field.enum)})")
        if field.min_length is not None or field.max_length is not None:
            checks.append(f"length({raw}) BETWEEN {(field.min_length or 0) + 2} AND {(field.max_length or 2**31) + 2}")
    elif field.type == "timestamp":
        pattern = r'"\d\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"'
        checks.append(f"regexp_full_match({raw}, '{pattern}') AND {field.name} IS NOT NULL AND NOT starts_with({raw}, '\"0000')")
    elif field.type in BOUNDS:
        # Only the canonical spelling: a cast would round 12.5 and read 1e3.
        checks.append(f"{field.name}::VARCHAR = {raw}")
        checks += _within(field)
    elif field.type == "double":
        checks.append(f"NOT starts_with({raw}, '\"') AND isfinite({field.name})")
        checks += _within(field)
    else:
        checks.append(f"{raw} IN ('true', 'false')")
    condition = " AND ".join(checks)
    return condition if field.required else f"({raw} IS NULL OR ({condition}))"


def _within(field: EventField) -> list[str]:
    bounds = ((">=", field.minimum), ("<=", field.maximum))
    return [f"{field.name} {sign} {bound}" for sign, bound in bounds if bound is not None]


def _quoted(value: str) -> str:
    return "'" + json.dumps(value).replace("'", "''") + "'"


def read_strictly(value: bytes, schemas: EventSchemas, max_bytes: int) -> tuple[dict[str, Any], bool]:
    """Read one value: the event's fields, and whether it has an unknown one; raises RejectedError."""
    if len(value) > max_bytes:
        raise RejectedError(OVERSIZE)
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise RejectedError(INVALID_UTF8) from None
    if not value.strip(_BLANK):
        raise RejectedError(EMPTY_VALUE)
    tree = _read_object(text)
    version = tree.get("schema_version")
    schema = schemas.versions.get(version) if isinstance(version, str) else None
    if schema is None:
        raise RejectedError(SCHEMA_NOT_FOUND)
    event = {field.name: _read_field(field, tree.get(field.name)) for field in schema.fields}
    return event, any(name not in schemas.fields for name in tree)


def _read_object(text: str) -> dict[str, Any]:
    try:
        tree = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise RejectedError(MALFORMED_JSON) from None
    if not isinstance(tree, dict) or _depth(tree) > MAX_DEPTH:
        raise RejectedError(MALFORMED_JSON)
    return tree


def _refuse(token: str) -> NoReturn:
    raise ValueError(token)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        msg = "duplicate key"
        raise ValueError(msg)
    return tree


def _depth(tree: object) -> int:
    """Levels of nesting, without recursion: the input may be a depth bomb."""
    level, depth = [tree], 0
    while level := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
    return depth


def _read_field(field: EventField, value: Any) -> Any:
    if value is None:
        if field.required:
            raise RejectedError(MISSING_FIELD)
        return None
    read = _typed(field.type, value)
    if read is None:
        raise RejectedError(WRONG_TYPE)
    size = len(read) if isinstance(read, str) else read
    low, high = (field.min_length, field.max_length) if isinstance(read, str) else (field.minimum, field.maximum)
    if (
        (low is not None and size < low)
        or (high is not None and size > high)
        or (field.enum is not None and read not in field.enum)
    ):
        raise RejectedError(OUT_OF_RANGE)
    return read


def _typed(kind: str, value: Any) -> Any:
    """The value if it has the type, else None."""
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "timestamp":
        return read_instant(value) if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind == "double":
        return _finite(value)
    low, high = BOUNDS[kind]
    return value if isinstance(value, int) and low <= value <= high else None


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RejectedError(MALFORMED_JSON)
    return number


def read_instant(text: str) -> datetime | None:
    """An ISO 8601 instant with Z or an offset as naive UTC, None where it is none; a fraction is cut to microseconds."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        return None
    *numbers, fraction, _zulu, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    if hours is not None and (int(hours) > 18 or int(minutes) > 59):
        return None
    try:
        moment = datetime(*(int(number) for number in numbers), int((fraction or "0")[:6].ljust(6, "0")), tzinfo=UTC) - offset  # type: ignore[misc,arg-type]
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=None)
