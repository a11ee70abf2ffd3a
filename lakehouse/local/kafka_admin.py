"""Small questions to a Kafka broker: is it there, which topics has it, make this one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic

from pipelines.lake.errors import TransientError, UsageError
from pipelines.lake.kafka.admin import silent_admin
from pipelines.lake.kafka.offsets import NEXT, SilentPartitionsError, read_offsets

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
    soon = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500}
    return silent_admin({**soon, **(options or {}), "bootstrap.servers": bootstrap_servers})


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


def _serves(admin: AdminClient, topic: str, partitions: Sequence[int], timeout: float) -> bool:
    """Whether every partition answers: metadata names a leader before that leader takes requests."""
    try:
        read_offsets(admin, [TopicPartition(topic, part) for part in partitions], [NEXT], timeout)
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
    wanted = [TopicPartition(name, part) for name in names for part in topics[name].partitions]
    try:
        [found] = read_offsets(admin, wanted, [NEXT], timeout)
    except (KafkaException, TimeoutError) as error:
        msg = f"Kafka at {bootstrap_servers} did not tell its offsets ({_name(error)}); try again."
        raise TransientError(msg) from None
    ends: dict[str, dict[int, int]] = {name: {} for name in names}
    for place in sorted(found):
        ends[place.topic][place.partition] = found[place]
    return [TopicOffsets(name, ends[name]) for name in names]


def _name(error: KafkaException | TimeoutError) -> str:
    reason = error.reason if isinstance(error, SilentPartitionsError) else next(iter(error.args), None)
    return str(reason.name()) if isinstance(reason, KafkaError) else "no answer"
