"""Makes clients of Kafka that write nothing to standard error: what fails is told by the error of the call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription

GRACE_SECONDS = 0.1
"""Added to the time that the client gives a request: its own error then comes first, and says more than a TimeoutError."""


def silent_log() -> logging.Logger:
    """Logger for a client of librdkafka, which writes to standard error by itself unless it is given a logger."""
    silent = logging.getLogger("lakehouse.librdkafka")
    silent.propagate = False
    if not silent.handlers:
        silent.addHandler(logging.NullHandler())
    return silent


def silent_admin(config: Mapping[str, Any], on_error: Callable[[KafkaError], None] | None = None) -> AdminClient:
    """Return an admin client with librdkafka's options `config`; raises KafkaException where the library refuses one.

    `on_error` hears what no call says, such as a login that was refused.
    """
    own = dict(config) if on_error is None else {**config, "error_cb": on_error}
    return AdminClient(own, logger=silent_log())


def asking_admin(config: Mapping[str, Any], seconds: float, on_error: Callable[[KafkaError], None] | None = None) -> AdminClient:
    """Return a client for questions that take at most `seconds` each: it tries the next broker soon where one is down."""
    return silent_admin({"reconnect.backoff.ms": 50, **config, "socket.timeout.ms": int(seconds * 1000)}, on_error)


def describe_topic(admin: AdminClient, topic: str, seconds: float) -> TopicDescription:
    """Kafka's id of the topic and its partitions; raises KafkaException or TimeoutError.

    `list_topics` with a name is no way to ask: where the broker may create topics by itself, it creates that one.
    """
    found = admin.describe_topics(TopicCollection([topic]), request_timeout=seconds)[topic]
    described: TopicDescription = found.result(seconds + GRACE_SECONDS)
    return described
