"""Reads offset ranges of the topic with Kafka's plain client, on the executors, where Spark's source cannot.

Spark's source turns a record's milliseconds into microseconds by itself: one number beyond 64 bits of microseconds (nanoseconds
that a producer gave for milliseconds) fails the batch, at each start again. The plain client gives the number as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from pyspark.sql import DataFrame, SparkSession

from pipelines.lake.errors import DataLossError, TransientError

_SCHEMA = (
    "topic string, partition int, offset bigint, timestamp_ms bigint, timestampType int, key binary, "
    "headers array<struct<key:string,value:binary>>, value binary"
)
_ARROW = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp_ms", pa.int64()),
        ("timestampType", pa.int32()),
        ("key", pa.binary()),
        ("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
        ("value", pa.binary()),
    ]
)
_OFFSETS_PER_TASK = 50_000
_RECORDS, _BYTES = 5_000, 16 * 1024 * 1024
"""Of one Arrow batch: a worker holds no more than this and what the client has fetched."""
_SILENCE_SECONDS = 60.0
"""A broker that gives neither a record nor an end for so long is taken for one that does not answer."""
_END_SECONDS = 10.0
"""An end may lag for a moment: behind a new leader, or behind the marker of a transaction that was committed just now."""
Range = tuple[int, int, int]
"""Partition, first offset and end (exclusive)."""


def read_ranges(
    spark: SparkSession, config: Mapping[str, Any], topic: str, start: Mapping[int, int], end: Mapping[int, int]
) -> DataFrame:
    """The committed records of the ranges [start, end), with the columns of Spark's source but for `timestamp_ms`.

    `config` are librdkafka's options. Reading raises DataLossError where Kafka no longer holds the beginning of a range or its
    end is gone, TransientError where no broker answers.
    """
    ranges = list(_slices(start, end))
    frame = spark.createDataFrame(ranges, "partition int, first bigint, stop bigint").repartition(max(1, len(ranges)))
    return frame.mapInArrow(_reader(dict(config), topic), _SCHEMA)


def _slices(start: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Range]:
    for partition, stop in sorted(end.items()):
        for first in range(start.get(partition, 0), stop, _OFFSETS_PER_TASK):
            yield partition, first, min(first + _OFFSETS_PER_TASK, stop)


def _reader(config: dict[str, Any], topic: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                yield from read_range(config, topic, (row["partition"], row["first"], row["stop"]))

    return read


def read_range(config: Mapping[str, Any], topic: str, wanted: Range) -> Iterator[pa.RecordBatch]:
    """The committed records of one range; see `read_ranges`."""
    partition, first, _ = wanted
    consumer = Consumer(
        {
            **config,
            "group.id": "lakehouse-bronze-plain",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, first)])
        rows: list[dict[str, Any]] = []
        size = 0
        for message in _messages(consumer, wanted, topic):
            row = _row(message)
            rows.append(row)
            size += len(row["value"] or b"")
            if len(rows) >= _RECORDS or size >= _BYTES:
                yield pa.RecordBatch.from_pylist(rows, _ARROW)
                rows, size = [], 0
        if rows:
            yield pa.RecordBatch.from_pylist(rows, _ARROW)
    finally:
        consumer.close()


def _messages(consumer: Consumer, wanted: Range, topic: str) -> Iterator[Message]:
    partition, first, stop = wanted
    silent_since = time.monotonic()
    end: int | None = None
    while True:
        message = consumer.poll(1.0)
        if message is None:
            silent = time.monotonic() - silent_since
            if end is not None and silent > _END_SECONDS:
                _refuse_lost(topic, wanted, f"it ends before offset {end}")
            if silent > _SILENCE_SECONDS:
                msg = (
                    f"Kafka gave nothing of {topic} partition {partition} for {_SILENCE_SECONDS:.0f} s; see that it runs and try "
                    "again (playbooks/kafka-outage.md)."
                )
                raise TransientError(msg)
            continue
        silent_since = time.monotonic()
        error, offset = message.error(), message.offset()
        if error is None and offset is not None:
            end = None
            if offset < stop:
                yield message
            if offset >= stop - 1:
                return
        elif error is not None and error.code() == KafkaError._PARTITION_EOF:
            if offset is not None and offset >= stop:
                return
            end = offset
        elif error is not None and error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            _refuse_lost(topic, wanted, f"it no longer holds offset {first}")
        elif error is not None and not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
            msg = f"Kafka does not give {topic} partition {partition} ({error.name()}); see playbooks/kafka-outage.md."
            raise TransientError(msg)


def _refuse_lost(topic: str, wanted: Range, found: str) -> None:
    partition, first, stop = wanted
    msg = (
        f"Offsets {first} to {stop - 1} of {topic} partition {partition} were to be read from Kafka, but {found}; "
        "see playbooks/retention-overrun.md."
    )
    raise DataLossError(msg)


def _row(message: Message) -> dict[str, Any]:
    kind, ms = message.timestamp()
    headers = message.headers()
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp_ms": ms,
        # The client counts from 1 (0: none), Kafka and Spark from 0.
        "timestampType": kind - 1,
        "key": message.key(),
        "headers": [{"key": pair[0], "value": pair[1]} for pair in headers] if headers else None,
        "value": message.value(),
    }
