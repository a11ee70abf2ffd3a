"""The peer has to do the whole work, or a comparison with it says nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from benchmarks.peer_parse import RejectedError, read_strictly
from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.local.producer import produce_events
from lakehouse.proof.op_ledger import fates_sql
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings

COUNT = 3000
COLUMNS = (
    "event_id, customer_id, api_key_id, endpoint, method, status_code, response_time_ms, request_bytes, response_bytes, region"
)
MANY_ODD = Mix(late=0.03, duplicate=0.1, conflict=0.02, malformed=0.1, tombstone=0.02, skew=0.02, unusual=0.05)


@pytest.fixture(scope="module")
def run(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Path]:
    """The peer's result on a topic of odd records in six batches, its lake, and the op ledger."""
    folder = tmp_path_factory.mktemp("peer")
    overrides = {"kafka.bootstrap_servers": broker.bootstrap_servers, "kafka.topic": "bench-peer", "lake.state_dir": str(folder)}
    settings = load_settings(None, environ={}, overrides=overrides)
    ensure_topic(broker.bootstrap_servers, "bench-peer", 3)
    produce_events(settings, ProducePlan(count=COUNT, seed=7, mix=MANY_ODD), folder / "ops")
    command = [sys.executable, "-m", "benchmarks.peer", "--bootstrap-servers", broker.bootstrap_servers, "--topic", "bench-peer"]
    command += ["--lake", str(folder / "lake"), "--batch", "500", "--result", str(folder / "result.json")]
    subprocess.run(command, cwd=PROJECT, check=True)
    return json.loads((folder / "result.json").read_text()), folder / "lake", folder / "ops"


def _rows(query: str, **lake_tables: Path) -> list[Any]:
    """Answer `query`; each named Delta table is read by deltalake, at its newest version."""
    connection = duckdb.connect()
    for name, path in lake_tables.items():
        connection.register(name, DeltaTable(str(path)).to_pyarrow_table())
    return connection.execute(query).fetchall()


def test_fates_are_those_of_the_op_ledger(run: tuple[dict[str, Any], Path, Path]) -> None:
    result, _, ledger = run
    fates = f"SELECT fate, count(*) FROM ({fates_sql(ledger)}) GROUP BY fate"  # noqa: S608
    expected = dict(_rows(fates))

    assert min(expected.values()) > 20
    assert {
        "silver": result["silver"],
        "duplicate": result["duplicate"],
        "dead_letter": result["dead_lettered"],
        "tombstone": result["tombstone"],
    } == expected
    assert result["rows_read"] == COUNT


def test_survivors_and_their_values_are_those_of_the_op_ledger(run: tuple[dict[str, Any], Path, Path]) -> None:
    _, lake, ledger = run
    told_columns = f'"partition", "offset", {COLUMNS}, event_timestamp_ms, is_late'
    told = f"SELECT {told_columns} FROM ({fates_sql(ledger)}) WHERE fate = 'silver'"  # noqa: S608
    stored_columns = f"_kafka_partition, _kafka_offset, {COLUMNS}, epoch_ms(event_timestamp), _is_late_arriving"
    stored = f"SELECT {stored_columns} FROM silver"  # noqa: S608

    assert _rows(f"({told}) EXCEPT ALL ({stored})", silver=lake / "silver") == []
    assert _rows(f"({stored}) EXCEPT ALL ({told})", silver=lake / "silver") == []


def test_gold_adds_up_to_silver(run: tuple[dict[str, Any], Path, Path]) -> None:
    _, lake, _ = run
    in_gold = "SELECT sum(event_count), sum(error_count), sum(request_bytes), sum(late_count) FROM gold"
    totals = "count(*), count(*) FILTER (status_code >= 400), sum(request_bytes), count(*) FILTER (_is_late_arriving)"
    in_silver = f"SELECT {totals} FROM silver"  # noqa: S608

    expected = _rows(in_silver, silver=lake / "silver")
    assert _rows(in_gold, gold=lake / "gold_hourly") == expected
    assert _rows(in_gold, gold=lake / "gold_daily") == expected


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (b" \n", "SLV-003"),
        (b'{"a":"\xff"}', "SLV-002"),
        (b'{"a":1} x', "SLV-004"),
        (b'{"a":1,"a":2}', "SLV-004"),
        (b'{"a":NaN}', "SLV-004"),
        (b'{"x":' + b"[" * 64 + b"]" * 64 + b"}", "SLV-004"),
        (b'{"event_id":"a"}', "SLV-005"),
        (b'{"schema_version":"1.0"}', "SLV-006"),
        (b'{"schema_version":"1.0","event_id":"\\ud83d"}', "SLV-004"),
        (b'{"schema_version":"1.0","event_id":1}', "SLV-007"),
        (b'{"schema_version":"1.0","event_id":"\\u2003"}', "SLV-008"),
        (b'{"schema_version":"1.0","event_id":"e","event_timestamp":"2026-01-28T10:15:30"}', "SLV-007"),
        (b'{"schema_version":"1.0","event_id":"e","event_timestamp":"2200-01-01T00:00Z"}', "SLV-008"),
    ],
)
def test_strict_reader_names_the_rule(value: bytes, rule: str) -> None:
    schemas = read_schemas(PROJECT / "conf/schemas/api_usage_events")

    with pytest.raises(RejectedError) as raised:
        read_strictly(value, schemas, 262_144)

    assert raised.value.rule == rule
