"""Ranges of a real topic, read with the plain client: each record once, with Kafka's own number for its time."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from pipelines.bronze import plain_client
from pipelines.bronze.plain_client import read_range
from pipelines.lake.errors import DataLossError, TransientError
from tests.transactions import end_transaction

TIMES = (1_795_860_000_000, 1_795_860_000_000_000_000, -1, -(2**63), 2**63 - 1, -62_135_596_800_001, 1)


@pytest.fixture
def topic(broker: EmbeddedBroker) -> Iterator[str]:
    name = f"plain-{uuid.uuid4().hex[:8]}"
    ensure_topic(broker.bootstrap_servers, name, 1, {"retention.ms": "-1"})
    yield name
    # The client has a name: one that is collected before its answer comes gives none.
    admin = AdminClient(_config(broker))
    admin.delete_topics([name])[name].result(30)


def _config(broker: EmbeddedBroker) -> dict[str, str | int | float | bool]:
    return {"bootstrap.servers": broker.bootstrap_servers}


def _send(broker: EmbeddedBroker, topic: str, *times: int, commit: bool | None = None) -> None:
    """Send a record for each time; with `commit` in a transaction that is committed or aborted: its marker takes an offset."""
    options = {} if commit is None else {"transactional.id": uuid.uuid4().hex}
    producer = Producer({**_config(broker), **options})
    if commit is not None:
        producer.init_transactions(30)
        producer.begin_transaction()
    for ms in times:
        producer.produce(topic, str(ms).encode(), None, 0, timestamp=ms, headers=[("h", b"\xff"), ("n", None)])
    assert producer.flush(30) == 0  # An abort drops what is not sent yet.
    if commit is not None:
        end_transaction(producer, broker.bootstrap_servers, topic, commit=commit)


def _read(broker: EmbeddedBroker, topic: str, first: int, stop: int) -> list[tuple[int, int]]:
    batches = list(read_range(_config(broker), topic, (0, first, stop)))
    return [(row["offset"], row["timestamp_ms"]) for batch in batches for row in batch.to_pylist()]


def test_any_number_is_read_as_it_was_sent(broker: EmbeddedBroker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_client, "_RECORDS", 3)  # several Arrow batches
    _send(broker, topic, *TIMES)

    assert _read(broker, topic, 0, len(TIMES)) == list(enumerate(TIMES))
    assert _read(broker, topic, 2, 4) == [(2, TIMES[2]), (3, TIMES[3])]
    (batch,) = read_range(_config(broker), topic, (0, 1, 2))
    (row,) = batch.to_pylist()
    assert row == {
        "topic": topic,
        "partition": 0,
        "offset": 1,
        "timestamp_ms": TIMES[1],
        "timestampType": 0,
        "key": None,
        "headers": [{"key": "h", "value": b"\xff"}, {"key": "n", "value": None}],
        "value": str(TIMES[1]).encode(),
    }


def test_markers_and_aborted_records_are_holes(broker: EmbeddedBroker, topic: str) -> None:
    _send(broker, topic, 1, 2, commit=True)  # 0, 1; a marker at 2
    _send(broker, topic, 3, commit=False)  # 3, aborted; a marker at 4
    _send(broker, topic, 5)
    _send(broker, topic, 6, commit=True)  # 6; a marker at 7, the end

    assert _read(broker, topic, 0, 8) == [(0, 1), (1, 2), (5, 5), (6, 6)]
    assert _read(broker, topic, 2, 5) == []
    assert _read(broker, topic, 6, 8) == [(6, 6)]


def test_end_that_lags_is_waited_for(broker: EmbeddedBroker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_client, "_RECORDS", 1)
    _send(broker, topic, 1)
    batches = read_range(_config(broker), topic, (0, 0, 2))
    assert next(batches).num_rows == 1
    later = threading.Timer(3, lambda: _send(broker, topic, 2))
    later.start()

    assert [row["offset"] for batch in batches for row in batch.to_pylist()] == [1]
    later.join()


def test_range_that_kafka_no_longer_holds_is_named(broker: EmbeddedBroker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_client, "_END_SECONDS", 1.0)
    _send(broker, topic, 1, 2, 3)
    with pytest.raises(DataLossError, match=r"Offsets 0 to 4 .* ends before offset 3; see playbooks/retention-overrun"):
        _read(broker, topic, 0, 5)
    admin = AdminClient(_config(broker))
    admin.delete_records([TopicPartition(topic, 0, 2)])[TopicPartition(topic, 0, 2)].result(30)

    with pytest.raises(DataLossError, match=r"Offsets 0 to 2 .* no longer holds offset 0"):
        _read(broker, topic, 0, 3)


def test_silent_broker_may_be_asked_again(topic: str, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_client, "_SILENCE_SECONDS", 0.5)
    silent = {**_config(broker), "bootstrap.servers": "127.0.0.1:1", "log_level": "0"}

    with pytest.raises(TransientError, match="playbooks/kafka-outage"):
        list(read_range(silent, topic, (0, 0, 1)))
