"""Records with values from the whole range of each type, the edges first, and the fate that each must have."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.faults.by_hand import Record
from tests.faults.conftest import DAY

PARTITIONS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = int(DAY.timestamp() * 1000)
_LONG_MAX, _LONG_MIN = 2**63 - 1, -(2**63)
SPARK_LAST_MS = _LONG_MAX // 1000
"""The last number of milliseconds that Spark's Kafka source can convert."""
END_MS = 7_258_118_400_000
LARGEST = 2**35 - 1

HELD_TIMES = (1, 999, 10**10 - 1, 10**10, DAY_MS, 2**31 * 1000 - 1, 2**31 * 1000, 2**32 * 1000, END_MS - 1)
"""Kafka times that are instants from 1970 to 2199. The client takes 0 for now."""
ODD_TIMES = (-1, -5, -2_208_988_800_000, END_MS, 9_223_372_036_854, DAY_MS * 1000, SPARK_LAST_MS)
"""Numbers that are no such instant, and that Spark's source converts."""
FAR_TIMES = (
    _LONG_MIN, _LONG_MIN + 1, -SPARK_LAST_MS - 2, -2_208_988_800_001, -12_219_292_800_001, -62_135_596_800_001,
    SPARK_LAST_MS + 1, DAY_MS * 1_000_000, _LONG_MAX - 1, _LONG_MAX,
)  # fmt: skip
"""Numbers that Spark's source cannot convert, or converts to others."""

_INSTANTS = ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000001Z", "2038-01-19T03:14:08Z", "2106-02-07T06:28:16Z",
             "2199-12-31T23:59:59.999999Z", "2000-02-29T12:00:00+18:00", "2026-01-28T06:00:00.123456789-18:00")  # fmt: skip
_NOT_HELD = ("0001-01-01T00:00:00Z", "0026-11-28T10:00:00Z", "0999-12-31T23:59:59Z", "1226-05-05T05:05:05Z",
             "1582-10-10T00:00:00Z", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:59:59+01:00", "2200-01-01T00:00:00Z",
             "2199-12-31T23:59:59-00:01", "2262-04-11T23:47:17Z", "2300-01-01T00:00:00Z", "9999-12-31T23:59:59Z")  # fmt: skip
_NO_INSTANTS = ("2026-02-30T00:00:00Z", "2026-01-28T25:00:00Z", "2026-01-28T10:00:00", "0000-01-01T00:00:00Z",
                "+58878-01-01T00:00:00Z", "now", "")  # fmt: skip
_TEXTS = ("a", "x" * 128, "\U0001f600" * 128, "é" * 128, "a\x00b", "a\u2028b", "'; DROP TABLE t", "%Y", "\ufffd", " a ", "\\")
_CUSTOMERS = ("cust-a", "cust-b", "Ünïcode", "c" * 128)

_BAD: dict[str, tuple[tuple[str, Any], ...]] = {
    "SLV-008": (
        *(("event_timestamp", text) for text in _NOT_HELD),
        *(("status_code", number) for number in (99, 600, 0, -1, 2**31 - 1, -(2**31))),
        *((name, number) for name in ("request_bytes", "response_bytes") for number in (LARGEST + 1, _LONG_MAX, -1, _LONG_MIN)),
        ("response_time_ms", -1), ("response_time_ms", -5e-324),
        *((name, text) for name in ("event_id", "customer_id", "api_key_id") for text in ("", "x" * 129)),
        ("endpoint", "x" * 2049), ("region", "x" * 65), ("method", "get"),
    ),
    "SLV-007": (
        *(("event_timestamp", text) for text in _NO_INSTANTS),
        *(("status_code", number) for number in (2**31, -(2**31) - 1, 200.5, "200", True)),
        *((name, number) for name in ("request_bytes", "response_bytes") for number in (_LONG_MAX + 1, _LONG_MIN - 1, 0.5)),
        ("response_time_ms", "1"), ("customer_id", 1), ("region", {}),
    ),
    "SLV-006": (("event_id", ...), ("event_timestamp", None), ("request_bytes", ...)),
    "SLV-005": (("schema_version", ...), ("schema_version", "9.9"), ("schema_version", 1.0)),
}  # fmt: skip


@dataclass
class Values:
    """Draws records; an id that was drawn may come again with the same event time, as a producer's retry has it."""

    seed: int
    _random: random.Random = field(init=False)
    _copied: list[dict[str, Any]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, count: int, *, far: bool) -> list[Record]:
        """So many records; with `far` among them such as Spark's source cannot convert."""
        return [self._record(far=far) for _ in range(count)]

    def _record(self, *, far: bool) -> Record:
        pick, chance = self._random.choice, self._random.random()
        kafka_ms, partition = self._kafka_ms(far=far), self._random.randrange(PARTITIONS)
        if chance < 0.02:
            return Record(None, b"key", kafka_ms, "tombstone", partition=partition)
        if chance < 0.25:
            rule = pick(tuple(_BAD))
            name, value = pick(_BAD[rule])
            fields = {**self._fields(), name: value}
            kept = {key: value for key, value in fields.items() if value is not ...}
            return Record(_encode(kept), b"key", kafka_ms, "dead_letter", rule, partition=partition)
        if chance < 0.4 and self._copied:
            fields = {**pick(self._copied), **({"status_code": 201} if chance < 0.3 else {})}
        else:
            fields = self._fields()
            self._copied.append(fields)
        return Record(_encode(fields), b"key", kafka_ms, event=_columns(fields), partition=partition)

    def _kafka_ms(self, *, far: bool) -> int:
        pick, chance = self._random.choice, self._random.random()
        if chance < 0.5:
            return DAY_MS + self._random.randrange(3_600_000)
        if chance < 0.7:
            return pick(HELD_TIMES)
        if chance < 0.8 or not far:
            return pick(ODD_TIMES)
        return pick(FAR_TIMES) if chance < 0.9 else self._random.randint(_LONG_MIN, _LONG_MAX) or 1

    def _fields(self) -> dict[str, Any]:
        pick, self._count = self._random.choice, self._count + 1
        near = (DAY + timedelta(microseconds=self._random.randrange(7_200_000_000))).isoformat().replace("+00:00", "Z")
        far = _EPOCH + timedelta(milliseconds=self._random.randrange(END_MS))
        instants = (near, near, near, pick(_INSTANTS), far.isoformat())
        return {
            "event_id": pick(("e", "é", "\x00", " ")) + str(self._count),
            "event_timestamp": pick(instants),
            "customer_id": pick(_CUSTOMERS),
            "api_key_id": pick(_TEXTS),
            "endpoint": pick((*_TEXTS, "x" * 2048)),
            "method": pick(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
            "status_code": pick((100, 200, 399, 400, 599)),
            "response_time_ms": pick((0, 0.0, 5, 5.000001, 5000, 1e308, 5e-324, 2**53 + 1, None)),
            "request_bytes": pick((0, 1, 2**31, LARGEST)),
            "response_bytes": pick((0, 1, 2**32, LARGEST - 1, LARGEST)),
            "region": pick((None, "eu-west-1", "x" * 64)),
            "schema_version": "1.0",
        }


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _columns(fields: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in fields.items() if name not in ("event_timestamp", "schema_version")}
    text = fields["event_timestamp"]
    # Python's own reader of instants takes at most six digits of a fraction.
    at = datetime.fromisoformat(text.replace(".123456789", ".123456"))
    latency = found["response_time_ms"]
    event_ms = (at - _EPOCH) // timedelta(milliseconds=1)
    return {**found, "event_ms": event_ms, "response_time_ms": None if latency is None else float(latency)}
