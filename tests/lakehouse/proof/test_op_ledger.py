from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from lakehouse.local.event_plan import Limits, Mix, ProducePlan
from lakehouse.local.events import scheduled_rows
from lakehouse.proof.event_rows import EVENT_COLUMNS, Rows
from lakehouse.proof.op_ledger import SCHEMA, LedgerPart, OpLedger, body_writer, fates_sql

START = datetime(2026, 1, 28, tzinfo=UTC)
T0 = 1_769_594_400_000


def events(*copies: tuple[str | None, int]) -> Rows:
    """Rows of (event_id, Kafka timestamp); None: a tombstone."""
    rows = Rows()
    for event_id, kafka_ms in copies:
        for column in vars(rows).values():
            column.append(None)
        at = len(rows) - 1
        rows.kind[at], rows.kafka_ms[at], rows.value[at] = "ordinary", kafka_ms, (event_id or "").encode()
        rows.set_event(at, {**dict.fromkeys(EVENT_COLUMNS), "event_id": event_id, "event_ms": T0})
        if event_id is None:
            rows.value[at] = None
            rows.set_rejected(at, "tombstone", None)
    return rows


def write(folder: Path, run: str, rows: Rows, places: list[tuple[int, int] | None]) -> None:
    part = LedgerPart(100)
    part.add(body_writer(7_200_000)(rows))
    for position, place in enumerate(places):
        part.fail(position) if place is None else part.ack(position, *place)
    assert part.settled
    OpLedger(folder, run, "topic").write(part)


def fates(folder: Path) -> list[Any]:
    return duckdb.connect().execute(f'SELECT "partition", "offset", fate FROM ({fates_sql(folder)}) ORDER BY ALL').fetchall()  # noqa: S608


def test_the_first_copy_by_kafka_time_then_partition_then_offset_survives(tmp_path: Path) -> None:
    rows = events(("a", T0 + 5), ("a", T0 + 4), ("a", T0 + 4), ("a", T0 + 4), ("b", T0), (None, T0))
    write(tmp_path, "run", rows, [(0, 0), (2, 0), (1, 9), (1, 8), (0, 1), (0, 2)])
    assert fates(tmp_path) == [
        (0, 0, "duplicate"),
        (0, 1, "silver"),
        (0, 2, "tombstone"),
        (1, 8, "silver"),
        (1, 9, "duplicate"),
        (2, 0, "duplicate"),
    ]


def test_runs_in_one_folder_share_their_event_ids(tmp_path: Path) -> None:
    folder = tmp_path / "o'ledger"
    write(folder, "one", events(("a", T0 + 1)), [(0, 0)])
    write(folder, "two", events(("a", T0)), [(0, 1)])
    assert fates(folder) == [(0, 0, "duplicate"), (0, 1, "silver")]


def test_a_record_that_was_not_acknowledged_is_not_in_it(tmp_path: Path) -> None:
    write(tmp_path, "run", events(("a", T0), ("a", T0 + 1)), [None, (0, 0)])
    write(tmp_path, "none", events(("b", T0)), [None])
    assert fates(tmp_path) == [(0, 0, "silver")]
    assert [path.name for path in tmp_path.iterdir()] == ["run-00000.parquet"]


def test_a_file_has_the_ledgers_columns_and_says_what_was_sent(tmp_path: Path) -> None:
    plan = ProducePlan(count=5000, seed=3, start_time=START, mix=Mix(tombstone=0.1, malformed=0.1, late=0.1))
    (rows,) = list(scheduled_rows(plan, Limits(), START))
    part = LedgerPart(len(rows))
    assert part.add(body_writer(7_200_000)(rows)) == 0
    for position in range(len(rows)):
        part.ack(position, position % 3, position // 3)
    OpLedger(tmp_path, "run", "topic").write(part)
    table = pq.read_table(tmp_path)
    assert table.schema.equals(SCHEMA)
    for at, row in enumerate(table.to_pylist()):
        value, key = rows.value[at], rows.key[at]
        event = rows.event(at)
        assert row == {
            **event_columns(event),
            "run_id": "run",
            "topic": "topic",
            "partition": at % 3,
            "offset": at // 3,
            "kafka_timestamp_ms": rows.kafka_ms[at],
            "kind": rows.kind[at],
            "expected": rows.expected[at],
            "expected_rule": rows.rule[at],
            "value_md5": None if value is None else hashlib.md5(value).hexdigest(),  # noqa: S324 - a fingerprint
            "value_size": None if value is None else len(value),
            "key_md5": None if key is None else hashlib.md5(key).hexdigest(),  # noqa: S324
            "is_late": None if event["event_ms"] is None else rows.kafka_ms[at] - event["event_ms"] > 7_200_000,
        }


def event_columns(event: dict[str, Any]) -> dict[str, Any]:
    return {"event_timestamp_ms" if name == "event_ms" else name: value for name, value in event.items()}
