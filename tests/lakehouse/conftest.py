"""A small lake made by hand: every fate, two partitions, a lawful hole, two days; the tests break it in one place each."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines.bronze.schema import TABLE
from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import ADJUSTMENTS, BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER, TableName
from tests.conftest import INTERPRETED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pyspark.sql import SparkSession

TOPIC = "api-usage-events"
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
Row = dict[str, Any]
Answers = Callable[..., None]

_TIME = pa.timestamp("us", tz="UTC")
_HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
_COORDINATES = [("_kafka_topic", pa.string()), ("_kafka_partition", pa.int32()), ("_kafka_offset", pa.int64())]
_COUNTS = "rows_read inserted replaced duplicate conflict already_present dead_lettered tombstone late".split()
_BUCKETS = [*(f"latency_le_{bound}" for bound in (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)), "latency_gt_5000"]
_MEASURES = "event_count error_count request_bytes response_bytes late_count distinct_api_keys".split()
_DAILY_MEASURES = [*_MEASURES[:-1], "distinct_endpoints"]

SCHEMAS: dict[TableName, pa.Schema] = {
    BRONZE: arrow_schema(TABLE, without=("_kafka_timestamp_ms",)),
    SILVER: pa.schema(
        [
            ("event_id", pa.string()),
            ("event_timestamp", _TIME),
            *((name, pa.string()) for name in ("customer_id", "api_key_id", "endpoint", "method")),
            ("status_code", pa.int32()),
            ("response_time_ms", pa.float64()),
            ("request_bytes", pa.int64()),
            ("response_bytes", pa.int64()),
            ("region", pa.string()),
            ("schema_version", pa.string()),
            ("_is_late_arriving", pa.bool_()),
            ("_arrival_delay_seconds", pa.float64()),
            ("_event_date", pa.date32()),
            ("_quality_flags", pa.list_(pa.string())),
            *_COORDINATES,
            ("_kafka_timestamp", _TIME),
            ("_processed_at", _TIME),
            ("_event_key", pa.int64()),
        ]
    ),
    DLQ: pa.schema(
        [
            ("_raw_value", pa.binary()),
            ("_kafka_key", pa.binary()),
            ("_kafka_headers", _HEADERS),
            *_COORDINATES,
            ("_kafka_timestamp", _TIME),
            ("_quality_flags", pa.list_(pa.string())),
            ("_error_message", pa.string()),
            ("_stage", pa.string()),
            ("_dlq_date", pa.date32()),
            ("_status", pa.string()),
            ("_attempts", pa.int32()),
            ("_replay_id", pa.string()),
            ("_dead_lettered_at", _TIME),
        ]
    ),
    GOLD_HOURLY: pa.schema(
        [
            ("hour", _TIME),
            ("customer_id", pa.string()),
            ("endpoint", pa.string()),
            *((name, pa.int64()) for name in (*_MEASURES, *_BUCKETS)),
            ("_updated_at", _TIME),
        ]
    ),
    GOLD_DAILY: pa.schema(
        [
            ("day", pa.date32()),
            ("customer_id", pa.string()),
            *((name, pa.int64()) for name in _DAILY_MEASURES),
            ("billing_status", pa.string()),
            ("silver_version", pa.int64()),
            ("_updated_at", _TIME),
        ]
    ),
    ADJUSTMENTS: pa.schema(
        [
            ("adjustment_id", pa.string()),
            ("day", pa.date32()),
            ("customer_id", pa.string()),
            ("sequence", pa.int32()),
            *((name, pa.int64()) for name in _MEASURES[:-1]),
            ("cause", pa.string()),
            ("silver_version_from", pa.int64()),
            ("silver_version_to", pa.int64()),
            ("run_id", pa.string()),
            ("created_at", _TIME),
        ]
    ),
    LEDGER: pa.schema(
        [
            ("job", pa.string()),
            ("generation", pa.string()),
            ("batch_id", pa.int64()),
            ("offsets", pa.string()),
            *((name, pa.int64()) for name in _COUNTS),
            ("versions", pa.string()),
            ("started_at", _TIME),
            ("committed_at", _TIME),
            ("duration_ms", pa.int64()),
        ]
    ),
}
_ORACLE = pa.schema(
    [
        ("run_id", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("kafka_timestamp_ms", pa.int64()),
        ("kind", pa.string()),
        ("expected", pa.string()),
        ("expected_rule", pa.string()),
        ("value_md5", pa.string()),
        ("value_size", pa.int64()),
        ("key_md5", pa.string()),
        ("event_id", pa.string()),
        ("event_timestamp_ms", pa.int64()),
        *((name, pa.string()) for name in ("customer_id", "api_key_id", "endpoint", "method")),
        ("status_code", pa.int32()),
        ("response_time_ms", pa.float64()),
        ("request_bytes", pa.int64()),
        ("response_bytes", pa.int64()),
        ("region", pa.string()),
        ("is_late", pa.bool_()),
    ]
)


def _event(event_id: str, at: datetime, **changes: Any) -> Row:
    return {
        "event_id": event_id,
        "event_timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "customer_id": "cust-1",
        "api_key_id": "key-1",
        "endpoint": "/v1/orders",
        "method": "GET",
        "status_code": 200,
        "response_time_ms": 12.5,
        "request_bytes": 100,
        "response_bytes": 2000,
        "region": "eu-west-1",
        "schema_version": "1.0",
        **changes,
    }


def _records() -> list[tuple[int, int, bytes | None, str, str | None]]:
    """Partition, offset, value, expected, rule. Partition 0 has a hole at 3; e1's copies stand in both partitions."""
    e1 = _event("e1", T0)
    plain = [
        (0, 0, e1),
        (0, 1, _event("e2", T0 - timedelta(hours=3), status_code=500, response_time_ms=None, region=None)),
        (0, 2, e1),
        (0, 4, _event("e3", T0 + timedelta(minutes=1), customer_id="cust-2", response_time_ms=6000)),
        (1, 0, _event("e4", T0 - timedelta(days=1), endpoint="/v1/ünïcode", api_key_id="key-2")),
        (1, 1, _event("e1", T0, status_code=404)),
    ]
    return [
        *((p, o, json.dumps(value, ensure_ascii=False).encode(), "event", None) for p, o, value in plain),
        (0, 5, b'{"event_id": "e5"', "dead_letter", "SLV-004"),
        (1, 2, None, "tombstone", None),
        (1, 3, b"\xff\xfe", "dead_letter", "SLV-002"),
    ]


@dataclass
class HandLake:
    """Rows of each table before they are written; change them, then `write`."""

    folder: Path
    rows: dict[TableName, list[Row]] = field(default_factory=dict)
    oracle: list[Row] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        tree = {"lake.root": str(self.folder / "lake"), "lake.state_dir": str(self.folder)}
        schemas = {"schemas_dir": str(PROJECT / "conf/schemas/api_usage_events")}
        return load_settings(None, environ={}, overrides={**tree, **schemas})

    def path(self, table: TableName) -> str:
        return table.path(self.settings)

    def write(self, *tables: TableName) -> None:
        """Write the tables (default: all) anew and the op ledger."""
        for table in tables or self.rows:
            write_deltalake(self.path(table), pa.Table.from_pylist(self.rows[table], SCHEMAS[table]), mode="overwrite")
        ledger = self.folder / "op_ledger"
        ledger.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.oracle, _ORACLE), ledger / "run-1.parquet")

    def find(self, table: TableName, partition: int, offset: int) -> Row:
        return next(row for row in self.rows[table] if (row["_kafka_partition"], row["_kafka_offset"]) == (partition, offset))

    def drop(self, table: TableName, partition: int, offset: int) -> Row:
        row = self.find(table, partition, offset)
        self.rows[table].remove(row)
        return row

    def delta(self, table: TableName) -> DeltaTable:
        return DeltaTable(self.path(table))


def _coordinates(partition: int, offset: int, at: datetime) -> Row:
    return {"_kafka_topic": TOPIC, "_kafka_partition": partition, "_kafka_offset": offset, "_kafka_timestamp": at}


def kafka_time(partition: int, offset: int) -> datetime:
    return T0 + timedelta(minutes=2, seconds=10 * offset + partition)


def _silver_row(event: Row, partition: int, offset: int) -> Row:
    at, sent = kafka_time(partition, offset), datetime.fromisoformat(event["event_timestamp"])
    delay = (at - sent).total_seconds()
    return {
        **event,
        "event_timestamp": sent,
        "_is_late_arriving": delay > 7200,
        "_arrival_delay_seconds": delay,
        "_event_date": sent.date(),
        "_quality_flags": [],
        **_coordinates(partition, offset, at),
        "_processed_at": T0,
        "_event_key": int(event["event_id"][1:]),
    }


def _oracle_row(partition: int, offset: int, value: bytes | None, expected: str, rule: str | None) -> Row:
    at = kafka_time(partition, offset)
    row: Row = {
        "run_id": "run-1",
        "topic": TOPIC,
        "partition": partition,
        "offset": offset,
        "kafka_timestamp_ms": int(at.timestamp() * 1000),
        "kind": expected,
        "expected": expected,
        "expected_rule": rule,
        "value_md5": None if value is None else hashlib.md5(value, usedforsecurity=False).hexdigest(),
        "value_size": None if value is None else len(value),
        "key_md5": hashlib.md5(b"key", usedforsecurity=False).hexdigest(),
    }
    if expected == "event" and value is not None:
        event = json.loads(value)
        sent = datetime.fromisoformat(event["event_timestamp"])
        row |= {**event, "event_timestamp_ms": int(sent.timestamp() * 1000), "is_late": (at - sent).total_seconds() > 7200}
        del row["event_timestamp"], row["schema_version"]
    return row


def _hourly(hour: datetime, customer: str, endpoint: str, **measures: int) -> Row:
    zero = dict.fromkeys((*_MEASURES, *_BUCKETS), 0)
    plain = {"event_count": 1, "request_bytes": 100, "response_bytes": 2000, "distinct_api_keys": 1}
    return {"hour": hour, "customer_id": customer, "endpoint": endpoint, **zero, **plain, **measures, "_updated_at": T0}


def _daily(day: date, customer: str, **measures: int | str) -> Row:
    zero = dict.fromkeys(_DAILY_MEASURES, 0)
    plain = {"event_count": 1, "request_bytes": 100, "response_bytes": 2000, "distinct_endpoints": 1}
    state = {"billing_status": "provisional", "silver_version": 0, "_updated_at": T0}
    return {"day": day, "customer_id": customer, **zero, **plain, **state, **measures}


def adjustment(day: date, customer: str, **changes: int | str) -> Row:
    """One late event that came after its day was closed."""
    measures = {
        **dict.fromkeys(_MEASURES[:-1], 0),
        "event_count": 1,
        "late_count": 1,
        "request_bytes": 100,
        "response_bytes": 2000,
    }
    versions = {"silver_version_from": 0, "silver_version_to": 1}
    row = {"adjustment_id": f"{day}/{customer}/1", "day": day, "customer_id": customer, "sequence": 1, "cause": "late"}
    return {**row, **measures, **versions, "run_id": "run-1", "created_at": T0, **changes}


@pytest.fixture(scope="session")
def make_adjustment() -> Callable[..., Row]:
    """`adjustment`, for tests: this file cannot be imported."""
    return adjustment


def batch(job: str, batch_id: int, offsets: dict[str, list[int]], **counts: int) -> Row:
    zero: Row = dict.fromkeys(_COUNTS, 0)
    times = {"started_at": T0, "committed_at": T0 + timedelta(hours=1), "duration_ms": 3_600_000}
    return {
        "job": job,
        "generation": "g1",
        "batch_id": batch_id,
        "offsets": json.dumps(offsets),
        **zero,
        **counts,
        "versions": "{}",
        **times,
    }


@pytest.fixture
def hand_lake(tmp_path: Path) -> HandLake:
    """A lake in which every invariant holds, not yet written."""
    lake = HandLake(tmp_path, rows={table: [] for table in SCHEMAS})
    survivors = {("e1", 0, 0), ("e2", 0, 1), ("e3", 0, 4), ("e4", 1, 0)}
    for p, o, value, expected, rule in _records():
        lake.oracle.append(_oracle_row(p, o, value, expected, rule))
        at = kafka_time(p, o)
        raw = {"_raw_value": value, "_kafka_key": b"key", "_kafka_headers": [], **_coordinates(p, o, at)}
        size = None if value is None else len(value)
        bronze = {"_kafka_timestamp_type": 0, "_raw_size": size, "_ingested_at": T0, "_event_date": at.date()}
        lake.rows[BRONZE].append({**raw, **bronze})
        if expected == "dead_letter":
            state = {"_stage": "silver", "_status": "open", "_attempts": 0, "_dlq_date": at.date(), "_dead_lettered_at": T0}
            lake.rows[DLQ].append({**raw, **state, "_quality_flags": [rule], "_error_message": "A sentence."})
        elif expected == "event" and value is not None and ((event := json.loads(value))["event_id"], p, o) in survivors:
            lake.rows[SILVER].append(_silver_row(event, p, o))
    lake.rows[GOLD_HOURLY] = [
        _hourly(T0, "cust-1", "/v1/orders", latency_le_25=1),
        _hourly(T0 - timedelta(hours=3), "cust-1", "/v1/orders", error_count=1, late_count=1),
        _hourly(T0, "cust-2", "/v1/orders", latency_gt_5000=1),
        _hourly(T0 - timedelta(days=1), "cust-1", "/v1/ünïcode", late_count=1, latency_le_25=1),
    ]
    day = T0.date()
    totals = {"event_count": 2, "request_bytes": 200, "response_bytes": 4000}
    lake.rows[GOLD_DAILY] = [
        _daily(day, "cust-1", error_count=1, late_count=1, **totals),
        _daily(day, "cust-2"),
        _daily(day - timedelta(days=1), "cust-1", late_count=1),
    ]
    lake.rows[LEDGER] = [
        batch("bronze", 0, {"0": [0, 2], "1": [0, 2]}, rows_read=4, inserted=4),
        batch("bronze", 1, {"0": [2, 6], "1": [2, 4]}, rows_read=5, inserted=5),
        batch("silver", 0, {"0": [0, 2], "1": [0, 2]}, rows_read=4, inserted=3, duplicate=1, conflict=1, late=2),
        batch("silver", 1, {"0": [2, 6], "1": [2, 4]}, rows_read=5, inserted=1, duplicate=1, dead_lettered=2, tombstone=1),
        batch("gold", 0, {"silver_version": [0, 0]}),
    ]
    return lake


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    """Runs `lakehouse` until one of three tries took less than so many seconds, as others may keep this machine's cores busy.

    `look` is given what each try answered. None may start a JVM.
    """
    shim, trace = tmp_path / "bin", tmp_path / "jvm-was-started"
    shim.mkdir()
    (shim / "java").write_text(f"#!/bin/sh\ntouch {trace}\n")
    (shim / "java").chmod(0o755)
    environ = {"PATH": f"{shim}:{os.environ['PATH']}", "HOME": str(tmp_path), "COLUMNS": "120"}

    def within(seconds: float, *words: str, look: Callable[[subprocess.CompletedProcess[str]], None]) -> None:
        def once() -> float:
            command, started = [sys.executable, "-m", "lakehouse", *words], time.monotonic()
            done = subprocess.run(command, env=environ, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
            took = time.monotonic() - started
            look(done)
            return took

        assert any(once() < seconds for _ in range(3))
        assert not trace.exists()

    return within


@pytest.fixture(scope="module")
def session(spark: SparkSession) -> Iterator[SparkSession]:
    """The process's Spark session, for statements on a few rows."""
    before = {name: str(spark.conf.get(name)) for name in INTERPRETED}
    for name, value in INTERPRETED.items():
        spark.conf.set(name, value)
    yield spark
    for name, value in before.items():
        spark.conf.set(name, value)


@pytest.fixture
def tables(session: SparkSession) -> Iterator[Callable[[HandLake, Collection[str]], None]]:
    """Makes a lake's tables (those named; none: all) known to the session by name until the test ends."""
    from pipelines.runtime.delta import register_tables  # noqa: PLC0415

    def forget() -> None:
        for layer in ("bronze", "silver", "gold", "ops"):
            session.sql(f"DROP DATABASE IF EXISTS {layer} CASCADE")

    def register(lake: HandLake, names: Collection[str] = ()) -> None:
        forget()
        if not names:
            register_tables(session, lake.settings)
        for name in names:
            layer, table = name.split(".")
            if (Path(lake.settings.lake.root) / layer / table).exists():
                session.sql(f"CREATE DATABASE IF NOT EXISTS {layer}")
                session.sql(f"CREATE TABLE {name} USING DELTA LOCATION '{lake.settings.lake.root}/{layer}/{table}'")

    yield register
    forget()
