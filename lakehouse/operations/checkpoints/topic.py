"""What Kafka says of the topic, asked once and with little patience: an operator waits for the answer."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelines.lake.errors import LakehouseError, TransientError, UsageError
from pipelines.lake.kafka import TopicState, bootstrap_servers, client_config
from pipelines.lake.settings import Settings

PATIENCE_SECONDS = 0.8
"""For commands that only look: they say what they know within two seconds, also when Kafka is down."""
DECIDING_SECONDS = 5.0
"""For commands that need the answer to decide."""


def ask_kafka(settings: Settings, seconds: float = PATIENCE_SECONDS) -> TopicState:
    """The topic's id, and the first and next offset of each partition.

    Raises TransientError where no broker answers within `seconds`, UsageError where none is known or the topic is absent.
    """
    servers, topic = bootstrap_servers(settings), settings.kafka.topic
    silent = logging.getLogger("lakehouse.librdkafka.checkpoint")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    config: dict[str, str | int | float | bool] = {
        **client_config(settings),
        "socket.timeout.ms": int(seconds * 1000),
        "reconnect.backoff.ms": 50,
    }
    try:
        # librdkafka speaks to standard error by itself unless it is given a logger.
        admin = AdminClient(config, logger=silent)
        numbers = sorted(admin.list_topics(topic, timeout=seconds).topics[topic].partitions)
        if not numbers:
            msg = f"Topic {topic} does not exist on {servers}; create it or correct `kafka.topic`."
            raise UsageError(msg)
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=seconds)[topic]
        partitions = [TopicPartition(topic, number) for number in numbers]
        asked = [
            admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=seconds, isolation_level=level)
            for spec, level in (
                (OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED),
                (OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED),
                (OffsetSpec.latest(), IsolationLevel.READ_COMMITTED),
            )
        ]
        start, end, stable = (
            {part.partition: future.result(seconds).offset for part, future in found.items()} for found in asked
        )
        return TopicState(topic=topic, topic_id=str(described.result(seconds).topic_id), start=start, end=end, stable=stable)
    except (KafkaException, TimeoutError):
        msg = (
            f"Kafka at {servers} does not answer; start it, or correct `kafka.bootstrap_servers` and `kafka.options` "
            "(playbooks/kafka-outage.md)."
        )
        raise TransientError(msg) from None


def ask_aside(settings: Settings) -> Future[TopicState | LakehouseError]:
    """Ask in a thread, with little patience: a broker that is down costs no time beside imports and tables."""
    pool = ThreadPoolExecutor(1)
    asked = pool.submit(_state_or_error, settings)
    pool.shutdown(wait=False)
    return asked


def _state_or_error(settings: Settings) -> TopicState | LakehouseError:
    try:
        return ask_kafka(settings)
    except LakehouseError as error:
        return error
