"""How an event is written as JSON: fast from a template, or slowly from its columns."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = "1.0"
TEMPLATE = (
    '{"event_id":"%s","event_timestamp":"%sZ",%s,%s,"status_code":%d,"response_time_ms":%s,'
    f'"request_bytes":%d,"response_bytes":%d,"region":%s,"schema_version":"{SCHEMA_VERSION}"}}'
)
"""Five times as fast as json.dumps: id, instant, caller, route, status, latency, bytes in and out, region."""
Fields = dict[str, Any]
"""An event's JSON object."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso_instants(ms: NDArray[np.int64]) -> list[str]:
    """Write milliseconds since the epoch as ISO 8601 with milliseconds, without the Z."""
    return list(np.datetime_as_string(ms.astype("datetime64[ms]"), unit="ms").tolist())


def iso_instant(ms: int) -> str:
    """Write milliseconds since the epoch as ISO 8601 with milliseconds and Z."""
    return (_EPOCH + timedelta(milliseconds=ms)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def message(event: dict[str, Any]) -> Fields:
    """Return the JSON object of the event columns (see `EVENT_COLUMNS`), in the schema's order."""
    fields = dict(event)
    event_id, event_ms = fields.pop("event_id"), fields.pop("event_ms")
    return {"event_id": event_id, "event_timestamp": iso_instant(event_ms), **fields, "schema_version": SCHEMA_VERSION}


def encode(fields: Fields) -> bytes:
    """Write a JSON object as compact UTF-8."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
