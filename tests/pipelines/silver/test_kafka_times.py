"""Kafka's time of a record may be any number: no layer stops, copies are found, and what is missing is said as such."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import write_deltalake

from pipelines.lake.ranges import END_INSTANT_MS
from pipelines.lake.tables import BRONZE, DLQ, SILVER

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
NOW_MS = 1_769_594_460_000
_TIME = pa.timestamp("us", tz="UTC")
TIMES = {
    "now": NOW_MS,
    "in 2040": 2_208_988_800_000,
    "in 2106": 2**32 * 1000,
    "in 2199": END_INSTANT_MS - 1,
    "in 2200": END_INSTANT_MS,
    "microseconds": NOW_MS * 1000,
    "nanoseconds": NOW_MS * 1_000_000,
    "seconds": NOW_MS // 1000,
    "none": -1,
    "least": -(2**63),
    "largest": 2**63 - 1,
}
_UNKNOWN = {"in 2200", "microseconds", "nanoseconds", "none", "least", "largest"}
"""Numbers that are no instant of the range."""


def _append(lake: Lake, schema: pa.Schema, *records: Row) -> None:
    schema = schema.append(pa.field("_kafka_timestamp_ms", pa.int64()))
    Path(lake.path(BRONZE)).mkdir(parents=True, exist_ok=True)
    write_deltalake(lake.path(BRONZE), pa.Table.from_pylist(list(records), schema), mode="append")


def _at(record: Row, ms: int) -> Row:
    """A row as Bronze writes it of a record with that time."""
    held = 0 <= ms < END_INSTANT_MS
    return {**record, "_kafka_timestamp": datetime.fromtimestamp(ms / 1000, UTC) if held else None, "_kafka_timestamp_ms": ms}


def test_any_kafka_time_is_one_event_and_its_copy_a_duplicate(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], bronze_schema: pa.Schema
) -> None:
    first = [_at(make_record(make_event(event_id=name), at), ms) for at, (name, ms) in enumerate(TIMES.items())]
    _append(lake, bronze_schema, *first, _at(make_record(b"{", 11), NOW_MS * 1000))
    lake.run_silver()
    # Copies, each a moment later by Kafka's number, but for the largest: its copy is earlier, and takes the place.
    again = [
        _at(make_record(make_event(event_id=name), 20 + at), ms + 1 if ms < 2**63 - 1 else ms - 1)
        for at, (name, ms) in enumerate(TIMES.items())
    ]
    _append(lake, bronze_schema, *again)
    lake.run_silver()
    lake.run_gold()

    rows = {row["event_id"]: row for row in lake.rows(SILVER)}
    assert {name: row["_kafka_timestamp_ms"] for name, row in rows.items()} == {**TIMES, "largest": 2**63 - 2}
    assert lake.counts() == {"rows_read": 23, "inserted": 11, "replaced": 1, "duplicate": 10, "dead_lettered": 1, "late": 3}
    assert {name for name, row in rows.items() if row["_kafka_timestamp"] is None} == _UNKNOWN
    assert {name for name, row in rows.items() if row["_arrival_delay_seconds"] is None} == _UNKNOWN
    assert {name for name, row in rows.items() if row["_quality_flags"] == ["SLV-104"]} == {*_UNKNOWN, "seconds"}
    assert {name for name, row in rows.items() if row["_is_late_arriving"]} == {"in 2040", "in 2106", "in 2199"}
    (letter,) = lake.rows(DLQ)
    assert (letter["_kafka_timestamp"], letter["_kafka_timestamp_ms"], letter["_dlq_date"]) == (None, NOW_MS * 1000, None)
    (day,) = lake.gold()[1]
    assert day["event_count"] == 11
