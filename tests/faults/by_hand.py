"""Records made by hand, sent where a test wants them, and noted in the op ledger with the fate that each must have."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from lakehouse.local.event_text import encode, message
from lakehouse.proof.event_rows import Expected, Rows
from lakehouse.proof.op_ledger import LedgerPart, OpLedger, body_writer
from tests.faults.conftest import LakeCase

Place = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True)
class Record:
    """A record, and what has to become of it; `event` holds the columns that Silver must read.

    `at` is when it reaches Kafka, or the number that its producer gives for that, which need not be an instant's.
    """

    value: bytes | None
    key: bytes | None
    at: datetime | int
    expected: Expected = "event"
    rule: str | None = None
    event: dict[str, Any] | None = None
    partition: int = 0


def milliseconds(at: datetime | int) -> int:
    """An instant as Kafka and the op ledger have it; a number is one already."""
    return at if isinstance(at, int) else round(at.timestamp() * 1000)


def columns(event_id: str, at: datetime | int, **changes: Any) -> dict[str, Any]:
    """Columns of a valid event."""
    return {
        "event_id": event_id,
        "event_ms": milliseconds(at),
        "customer_id": "cust-hand",
        "api_key_id": "key-hand",
        "endpoint": "/v1/orders",
        "method": "GET",
        "status_code": 200,
        "response_time_ms": 12.5,
        "request_bytes": 100,
        "response_bytes": 2000,
        "region": "eu-west-1",
        **changes,
    }


def valid(event_id: str, at: datetime, *, event_at: datetime | None = None, **changes: Any) -> Record:
    """A valid event that reaches Kafka at `at`; `partition`, `key` and columns may be changed."""
    partition, key = changes.pop("partition", 0), changes.pop("key", b"cust-hand")
    event = columns(event_id, event_at or at, **changes)
    return Record(encode(message(event)), key, at, event=event, partition=partition)


def rejected(value: bytes, rule: str, at: datetime, *, key: bytes | None = b"cust-hand") -> Record:
    """A record that has to become a dead letter by `rule`."""
    return Record(value, key, at, "dead_letter", rule)


def send(case: LakeCase, records: Sequence[Record], *, noted: bool = True, **options: Any) -> list[Place]:
    """Send the records in order and return where they are; with `noted` the op ledger knows them.

    `options` are the producer's. Raises AssertionError where one is not acknowledged.
    """
    places = put(producer_of(case, **options), case, records)
    if noted:
        note(case, records, places)
    return places


def producer_of(case: LakeCase, **options: Any) -> Producer:
    """A producer of the case's broker, for records up to 4 MB."""
    silent = logging.getLogger("lakehouse.librdkafka")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    fixed = {"bootstrap.servers": case.settings.kafka.bootstrap_servers, "acks": "all", "message.max.bytes": 4_000_000}
    return Producer({**fixed, **{name.replace("_", "."): value for name, value in options.items()}}, logger=silent)


def put(producer: Producer, case: LakeCase, records: Sequence[Record]) -> list[Place]:
    """Hand the records to `producer` and wait for all acknowledgements."""
    places: list[Place] = [(-1, -1)] * len(records)
    errors: list[KafkaError] = []

    def acknowledged(position: int, error: KafkaError | None, sent: Message | None) -> None:
        if error is None and sent is not None:
            places[position] = (int(sent.partition() or 0), int(sent.offset() or 0))
        elif error is not None:
            errors.append(error)

    for position, record in enumerate(records):
        producer.produce(
            case.settings.kafka.topic,
            record.value,
            record.key,
            record.partition,
            on_delivery=partial(acknowledged, position),
            timestamp=milliseconds(record.at),
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not errors, errors
    return places


def note(case: LakeCase, records: Sequence[Record], places: Sequence[Place]) -> None:
    """Write to the op ledger where the records are and what has to become of them."""
    rows = Rows()
    for record in records:
        one = Rows(
            value=[record.value],
            key=[record.key],
            kafka_ms=[milliseconds(record.at)],
            kind=["by_hand"],
            expected=[record.expected],
            rule=[record.rule],
        )
        for name, value in (record.event or columns("", record.at)).items():
            getattr(one, name).append(value if record.event else None)
        for column in fields(Rows):
            getattr(rows, column.name).extend(getattr(one, column.name))
    part = LedgerPart(len(rows))
    first = part.add(body_writer(case.settings.silver.late_after_seconds * 1000)(rows))
    for position, (partition, offset) in enumerate(places, first):
        part.ack(position, partition, offset)
    OpLedger(case.folder / "op_ledger", uuid.uuid4().hex, case.settings.kafka.topic).write(part)
