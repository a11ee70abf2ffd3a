"""How the peer reads events: one SQL projection for the plain ones, a strict reader for the few others.

DuckDB's JSON functions are no validators either: they let duplicate keys (the first wins), NaN, Infinity, 1e400 and a
trailing comma pass. So the projection accepts a row only when it can prove it: valid JSON, no escapes, as many keys as
known fields, every raw token of its type and in its bounds. All other rows, about 1 %, go through `read_strictly`, which has
the checker's reading of JSON, numbers and instants.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from typing import Any

from lakehouse.proof.strict_json import Number, strict_object
from lakehouse.proof.strict_values import WHITE_SPACE, has_half_pair, microseconds, whole
from pipelines.lake.event_schema import EventField, EventSchema, EventSchemas

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
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # DuckDB's instants have no zone


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
        if field.min_length:
            # Surely not blank; what begins with a blank or another letter goes the slow way.
            checks.append(f"substr({raw}, 2, 1) BETWEEN '!' AND '~'")
        if field.min_length is not None or field.max_length is not None:
            checks.append(f"length({raw}) BETWEEN {(field.min_length or 0) + 2} AND {(field.max_length or 2**31) + 2}")
    elif field.type == "timestamp":
        pattern = r'"\d\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"'
        low, high = field.asked()["minimum"], field.asked()["maximum"]
        checks.append(f"regexp_full_match({raw}, '{pattern}') AND {field.name} IS NOT NULL")
        checks.append(f"epoch_us({field.name}) BETWEEN {low} AND {high}")
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
    asked = field.asked()
    bounds = ((">=", asked.get("minimum")), ("<=", asked.get("maximum")))
    return [f"{field.name} {sign} {bound}" for sign, bound in bounds if bound is not None]


def _quoted(value: str) -> str:
    return "'" + json.dumps(value).replace("'", "''") + "'"


def read_strictly(value: bytes, schemas: EventSchemas, max_bytes: int) -> tuple[dict[str, Any], bool]:
    """Read one value: the event's fields, and whether it has an unknown one; raises RejectedError."""
    if len(value) > max_bytes:
        raise RejectedError(OVERSIZE)
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        raise RejectedError(INVALID_UTF8) from None
    if not value.strip(_BLANK):
        raise RejectedError(EMPTY_VALUE)
    try:
        tree = strict_object(value)
    except (ValueError, RecursionError):
        raise RejectedError(MALFORMED_JSON) from None
    version = tree.get("schema_version")
    schema = schemas.versions.get(version) if isinstance(version, str) else None
    if schema is None:
        raise RejectedError(SCHEMA_NOT_FOUND)
    event = {field.name: _read_field(field, tree.get(field.name)) for field in schema.fields}
    return event, any(name not in schemas.fields for name in tree)


def _read_field(field: EventField, value: Any) -> Any:
    if value is None:
        if field.required:
            raise RejectedError(MISSING_FIELD)
        return None
    try:
        read = _typed(field.type, value)
    except ValueError:
        raise RejectedError(WRONG_TYPE) from None
    asked = field.asked()
    if isinstance(read, str):
        shortest, longest = asked.get("min_length", 0), asked.get("max_length", math.inf)
        blank = shortest > 0 and not read.strip(WHITE_SPACE)
        fits = shortest <= len(read) <= longest and not blank and (not field.enum or read in field.enum)
    else:
        fits = asked.get("minimum", -math.inf) <= read <= asked.get("maximum", math.inf)
    if not fits:
        raise RejectedError(OUT_OF_RANGE)
    return _EPOCH + timedelta(microseconds=read) if field.type == "timestamp" else read


def _typed(kind: str, value: Any) -> Any:
    """The value as its type, an instant in microseconds; raises ValueError where it has another."""
    if kind == "timestamp":
        return microseconds(value)
    if kind == "string" and isinstance(value, str):
        if has_half_pair(value):
            raise RejectedError(MALFORMED_JSON)
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if isinstance(value, Number):
        if kind == "double":
            return _finite(float(value.text))
        if kind in BOUNDS and BOUNDS[kind][0] <= (number := whole(value.text)) <= BOUNDS[kind][1]:
            return number
    raise ValueError(kind)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise RejectedError(MALFORMED_JSON)
    return number + 0.0
