"""The limit: how fast one confluent-kafka consumer reads the topic and does nothing with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from pipelines.lake.errors import TransientError

_IDLE_SECONDS = 30.0
PLAIN: Mapping[str, int | str] = {}
"""As librdkafka comes."""
TUNED: Mapping[str, int | str] = {
    # librdkafka's defaults stop fetching at 64 MB and then wait a second before they look again.
    "queued.max.messages.kbytes": 256 * 1024,
    "fetch.max.bytes": 64 * 1024 * 1024,
    "max.partition.fetch.bytes": 16 * 1024 * 1024,
    "fetch.queue.backoff.ms": 5,
}
"""With large fetches: the limit of this machine."""


@dataclass(frozen=True)
class ConsumerRate:
    """Records read and the seconds of wall clock and of CPU that it took, connection included."""

    records: int
    seconds: float
    cpu_seconds: float


def assigned_consumer(bootstrap_servers: str, topic: str, options: Mapping[str, int | str] = TUNED) -> tuple[Consumer, int]:
    """Return a consumer at the beginning of all partitions, and how many records lie before their present ends."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "usage-lakehouse-bench",
            "enable.auto.commit": False,
            **options,
        }
    )
    partitions = [TopicPartition(topic, number) for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions]
    waiting = sum(high - low for low, high in (consumer.get_watermark_offsets(part, timeout=10) for part in partitions))
    consumer.assign([TopicPartition(topic, part.partition, OFFSET_BEGINNING) for part in partitions])
    return consumer, waiting


def measure_consumer(bootstrap_servers: str, topic: str, options: Mapping[str, int | str]) -> ConsumerRate:
    """Read the topic once from its beginning to its present end.

    Raises TransientError where no record comes for 30 s.
    """
    started, started_cpu = time.perf_counter(), time.process_time()
    consumer, waiting = assigned_consumer(bootstrap_servers, topic, options)
    read, last = 0, time.perf_counter()
    while read < waiting:
        messages = consumer.consume(num_messages=10_000, timeout=1.0)
        if messages:
            read, last = read + len(messages), time.perf_counter()
        elif time.perf_counter() - last > _IDLE_SECONDS:
            msg = f"Topic {topic} gave {read} of {waiting} records and then none for {_IDLE_SECONDS:g} s; see the broker's log."
            raise TransientError(msg)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    consumer.close()
    return ConsumerRate(read, seconds, cpu_seconds)
