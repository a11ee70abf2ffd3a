"""Small questions to a Kafka broker: is it there, which topics has it, make this one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic, OffsetSpec

from pipelines.lake.errors import TransientError, UsageError

DEFAULT_TIMEOUT = 15.0
KEEP_FOREVER = {"retention.ms": "-1"}
"""Events carry historic times; time-based retention would delete them at once."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class TopicOffsets:
    """A topic and, per partition, the offset of the next record."""

    topic: str
    end_offsets: dict[int, int]


def admin_client(bootstrap_servers: str, options: Mapping[str, str] | None = None) -> AdminClient:
    """Return an admin client that keeps connection errors off standard error; they come back from the calls."""
    # `log_level` 0: librdkafka would report each refused connection on the terminal.
    config: dict[str, Any] = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500, **(options or {})}
    config |= {"bootstrap.servers": bootstrap_servers, "log_level": 0, "error_cb": lambda _error: None}
    return AdminClient(config)


def cluster_metadata(admin: AdminClient, where: str, timeout: float = DEFAULT_TIMEOUT) -> ClusterMetadata:
    """Return brokers and topics; raise TransientError when nobody answers at `where` within `timeout` seconds."""
    try:
        return admin.list_topics(timeout=timeout)
    except KafkaException as error:
        msg = f"No Kafka broker answered at {where} within {timeout:g} s ({_name(error)}); start it or correct the address."
        raise TransientError(msg) from None


def ensure_topic(
    bootstrap_servers: str,
    topic: str,
    partitions: int,
    config: Mapping[str, str] | None = None,
    *,
    options: Mapping[str, str] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> int:
    """Create `topic` with `partitions` and `config` (default: kept forever) if it is absent, and wait until they serve it.

    A topic that exists is left as it is. Returns the number of its partitions.
    Raises UsageError when the broker refuses the topic, TransientError when it does not answer in time.
    """
    admin = admin_client(bootstrap_servers, options)
    new = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config={**KEEP_FOREVER, **(config or {})})
    cluster_metadata(admin, bootstrap_servers, timeout)
    try:
        admin.create_topics([new], operation_timeout=timeout)[topic].result(timeout)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            msg = f"Kafka at {bootstrap_servers} did not create the topic {topic} ({_name(error)}); correct name or settings."
            raise UsageError(msg) from None
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = cluster_metadata(admin, bootstrap_servers, timeout).topics.get(topic)
        if found is not None and found.partitions and _serves(admin, topic, list(found.partitions), timeout):
            return len(found.partitions)
        time.sleep(_POLL_SECONDS)
    msg = f"The topic {topic} at {bootstrap_servers} is not served after {timeout:g} s; see the broker's log."
    raise TransientError(msg)


def _serves(admin: AdminClient, topic: str, partitions: list[int], timeout: float) -> bool:
    """Whether every partition answers: metadata names a leader before that leader takes requests."""
    wanted = {TopicPartition(topic, part): OffsetSpec.latest() for part in partitions}
    try:
        for answer in admin.list_offsets(wanted, request_timeout=timeout).values():
            answer.result(timeout)
    except (KafkaException, TimeoutError):
        return False
    return True


def topic_offsets(
    bootstrap_servers: str, options: Mapping[str, str] | None = None, timeout: float = DEFAULT_TIMEOUT
) -> list[TopicOffsets]:
    """Return all topics but Kafka's own, by name, with their end offsets; raise TransientError when nobody answers."""
    admin = admin_client(bootstrap_servers, options)
    topics = cluster_metadata(admin, bootstrap_servers, timeout).topics
    names = sorted(name for name in topics if not name.startswith("__"))
    wanted = {TopicPartition(name, part): OffsetSpec.latest() for name in names for part in topics[name].partitions}
    ends: dict[str, dict[int, int]] = {name: {} for name in names}
    try:
        for place, answer in (admin.list_offsets(wanted, request_timeout=timeout) if wanted else {}).items():
            ends[place.topic][place.partition] = answer.result(timeout).offset
    except (KafkaException, TimeoutError) as error:
        msg = f"Kafka at {bootstrap_servers} did not tell its offsets ({_name(error)}); try again."
        raise TransientError(msg) from None
    return [TopicOffsets(name, dict(sorted(ends[name].items()))) for name in names]


def _name(error: Exception) -> str:
    return str(error.args[0].name()) if error.args and isinstance(error.args[0], KafkaError) else "no answer"
