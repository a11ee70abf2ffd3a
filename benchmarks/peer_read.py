"""How the peer reads Kafka: one thread that makes Arrow batches, a few ahead of the work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
from confluent_kafka import Consumer, Message

from benchmarks.consumer import assigned_consumer
from benchmarks.peer_lake import BRONZE_SCHEMA, UTC_MICROS

_AHEAD = 2
_KAFKA_TYPE_LOG_APPEND = 2


def read_batches(bootstrap_servers: str, topic: str, batch_size: int) -> Iterator[pa.Table]:
    """Yield the topic's records up to its present end, in Bronze's columns, some `batch_size` rows each."""
    batches: queue.Queue[pa.Table | BaseException | None] = queue.Queue(_AHEAD)

    def read() -> None:
        try:
            consumer, left = assigned_consumer(bootstrap_servers, topic)
            _fill(consumer, topic, left, batch_size, batches)
            consumer.close()
            batches.put(None)
        except BaseException as error:  # handed to the thread that waits for the batches
            batches.put(error)

    threading.Thread(target=read, name="reader", daemon=True).start()
    while (batch := batches.get()) is not None:
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def _fill(
    consumer: Consumer, topic: str, left: int, batch_size: int, batches: queue.Queue[pa.Table | BaseException | None]
) -> None:
    chunks: list[pa.Table] = []
    rows = 0
    while left > 0:
        messages = consumer.consume(num_messages=10_000, timeout=1.0)
        if not messages:
            continue
        chunks.append(_to_arrow(messages, topic))
        rows += len(messages)
        left -= len(messages)
        if rows >= batch_size or left <= 0:
            batches.put(pa.concat_tables(chunks))
            chunks, rows = [], 0


def _to_arrow(messages: list[Message], topic: str) -> pa.Table:
    for message in messages:
        if (error := message.error()) is not None:
            raise RuntimeError(str(error))
    count = len(messages)
    times = [message.timestamp() for message in messages]
    values = pa.array([message.value() for message in messages], pa.binary())
    timestamps = pa.array([time[1] * 1000 for time in times], pa.int64()).cast(UTC_MICROS)
    return pa.table(
        [
            pa.repeat(pa.scalar(topic), count),
            pa.array([message.partition() for message in messages], pa.int32()),
            pa.array([message.offset() for message in messages], pa.int64()),
            timestamps,
            pa.array([int(time[0] == _KAFKA_TYPE_LOG_APPEND) for time in times], pa.int32()),
            pa.array([message.key() for message in messages], pa.binary()),
            pa.array([message.headers() for message in messages], BRONZE_SCHEMA.field("_kafka_headers").type),
            values,
            pa.compute.binary_length(values),
            pa.repeat(pa.scalar(datetime.now(UTC), UTC_MICROS), count),
            timestamps.cast(pa.date32()),
        ],
        schema=BRONZE_SCHEMA,
    )
