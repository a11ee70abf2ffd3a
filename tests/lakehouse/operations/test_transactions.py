"""Transactions of producers: an open one holds Bronze back and is named, the marker that ends one is no lag."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.reading import read_facts
from lakehouse.operations.doctor.streams import QUIET
from lakehouse.operations.status.reading import read_status
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, SILVER
from tests.transactions import end_transaction

COMMITTED, OPEN = 3, 2


@pytest.fixture
def settings(broker: Any, tmp_path: Path) -> Settings:
    """A lake without tables but the ledger, whose topic of one partition ends with the marker of a transaction."""
    topic = f"transactions-{uuid4().hex[:8]}"
    ensure_topic(broker.bootstrap_servers, topic, 1)
    tree = {
        "lake.root": str(tmp_path / "lake"),
        "lake.state_dir": str(tmp_path),
        "lake.checkpoints": str(tmp_path / "ck"),
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.topic": topic,
    }
    settings = load_settings(None, environ={}, overrides=tree)
    producer = _begin(settings, COMMITTED)
    end_transaction(producer, broker.bootstrap_servers, topic)
    return settings


@pytest.fixture
def opened(settings: Settings) -> Iterator[Settings]:
    """The same with a transaction that is open."""
    producer = _begin(settings, OPEN)
    yield settings
    producer.abort_transaction()


def _begin(settings: Settings, count: int) -> Producer:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "transactional.id": uuid4().hex})
    producer.init_transactions()
    producer.begin_transaction()
    for number in range(count):
        producer.produce(settings.kafka.topic, str(number).encode(), partition=0)
    producer.flush()
    return producer


def _record(settings: Settings, job: str, batch: int, offsets: list[int], rows: int, **versions: int) -> None:
    names = {"bronze": str(BRONZE), "silver": str(SILVER)}
    row = BatchRow(job, "g", batch, {"0": offsets}, rows_read=rows, inserted=rows)
    Ledger(settings).record(replace(row, versions={names[name]: version for name, version in versions.items()}))


def _read_all(settings: Settings) -> None:
    """As Bronze and Silver record it: Bronze reads offsets up to the marker and past it, Silver sees records."""
    _record(settings, "bronze", 0, [0, COMMITTED + 1], COMMITTED, bronze=1)
    _record(settings, "silver", 0, [0, COMMITTED], COMMITTED, silver=1, bronze=2)


def test_marker_at_the_end_is_no_lag(settings: Settings) -> None:
    _read_all(settings)
    [part] = read_status(settings).partitions

    assert (part.kafka_end, part.kafka_stable) == (COMMITTED + 1, COMMITTED + 1)
    assert (part.bronze_lag, part.silver_lag, part.in_transaction) == (0, 0, 0)
    found = diagnose(read_facts(settings, "c.yaml"))
    # Gold has not run in this lake.
    assert [one.title for one in found if one.id.startswith(("stream", "open")) and "gold" not in one.title] == []


def test_batch_of_markers_alone_is_no_lag_of_silver(settings: Settings) -> None:
    _read_all(settings)
    _record(settings, "bronze", 1, [COMMITTED + 1, COMMITTED + 3], 0, bronze=2)

    assert read_status(settings).partitions[0].silver_lag == 0
    _record(settings, "bronze", 2, [COMMITTED + 3, COMMITTED + 8], 4, bronze=3)
    assert read_status(settings).partitions[0].silver_lag == 5


def test_open_transaction_is_named_and_no_lag_of_bronze(opened: Settings) -> None:
    _read_all(opened)
    [part] = read_status(opened).partitions

    assert (part.kafka_end, part.kafka_stable) == (COMMITTED + 1 + OPEN, COMMITTED + 1)
    assert (part.bronze_lag, part.silver_lag, part.in_transaction) == (0, 0, OPEN)
    assert wait_for_topic(opened).readable == {0: COMMITTED + 1}
    facts = read_facts(opened, "c.yaml")
    found = next(one for one in diagnose(facts) if one.id == "open-transaction")
    assert found.severity == "info"
    assert [one.title for one in diagnose(facts) if one.id == "stream-down" and "gold" not in one.title] == []
    assert f"last stable offset {COMMITTED + 1}, {OPEN} behind it" in found.evidence
    later = replace(facts, now=datetime.now(UTC) + QUIET + timedelta(minutes=1))
    assert [one.severity for one in diagnose(later) if one.id == "open-transaction"] == ["warning"]
    assert json.dumps(read_status(opened).as_dict(), default=str).count('"kafka_stable"') == 1
