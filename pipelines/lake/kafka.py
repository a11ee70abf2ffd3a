"""Where Kafka is and whether it answers; options for Spark's source and for confluent-kafka."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import tenacity
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelines.lake.errors import TransientError, UsageError
from pipelines.lake.logging import Log
from pipelines.lake.retries import is_worth_retrying
from pipelines.lake.settings import EMBEDDED, Settings
from pipelines.lake.storage.local_files import read_text

_LOG = Log("kafka")
_CALL_SECONDS = 5.0
_LOGIN_MODULES = {
    "PLAIN": "plain.PlainLoginModule",
    "SCRAM-SHA-256": "scram.ScramLoginModule",
    "SCRAM-SHA-512": "scram.ScramLoginModule",
}


@dataclass(frozen=True)
class TopicState:
    """A topic as the broker sees it: its id, and the first and next offset of each partition.

    `stable`: last stable offset of each partition, up to which `read_committed` reads: before `end` while a transaction is open.
    """

    topic: str
    topic_id: str
    start: Mapping[int, int]
    end: Mapping[int, int]
    stable: Mapping[int, int] = field(default_factory=dict)

    @property
    def readable(self) -> dict[int, int]:
        """For each partition the end (exclusive) of what can be read now."""
        return {partition: min(end, self.stable.get(partition, end)) for partition, end in self.end.items()}


def bootstrap_servers(settings: Settings) -> str:
    """The brokers to ask; `embedded` is looked up in the state folder.

    Raises UsageError where the embedded broker does not run, UnreadableError where nobody can tell.
    """
    if settings.kafka.bootstrap_servers != EMBEDDED:
        return settings.kafka.bootstrap_servers
    state = Path(settings.lake.state_dir) / "kafka" / "broker.json"
    try:
        return str(json.loads(read_text(state))["bootstrap_servers"])
    except (OSError, KeyError, ValueError):
        msg = (
            f"The embedded broker does not run ({state} is missing); start it with `lakehouse kafka start` "
            "(and this command's `--config`), or set `kafka.bootstrap_servers`."
        )
        raise UsageError(msg) from None


def client_config(settings: Settings) -> dict[str, str]:
    """Configuration of a confluent-kafka client: brokers and the options passed through."""
    return {**settings.kafka.options, "bootstrap.servers": bootstrap_servers(settings)}


def source_options(settings: Settings) -> dict[str, str]:
    """Options of Spark's Kafka source: brokers, topic, and the options passed through."""
    return {
        "kafka.bootstrap.servers": bootstrap_servers(settings),
        "subscribe": settings.kafka.topic,
        "includeHeaders": "true",
        "failOnDataLoss": "true",
        "kafka.isolation.level": "read_committed",
        # The defaults fetch 500 records a poll and 1 MB a partition: half the rate on a warm broker.
        "kafka.max.poll.records": "20000",
        "kafka.max.partition.fetch.bytes": str(16 * 1024 * 1024),
        "kafka.fetch.max.bytes": str(64 * 1024 * 1024),
        "kafka.receive.buffer.bytes": str(1024 * 1024),
        **{f"kafka.{key}": value for key, value in java_options(settings.kafka.options).items()},
    }


def java_options(options: Mapping[str, str]) -> dict[str, str]:
    """Options of a Java client from those that librdkafka takes: login and certificates are spelled differently there.

    Raises UsageError where a user name comes with a mechanism that has no login module for one.
    """
    found = {key: value for key, value in options.items() if key not in ("sasl.username", "sasl.password", "ssl.ca.location")}
    if "sasl.mechanisms" in found:
        found.setdefault("sasl.mechanism", found.pop("sasl.mechanisms"))
    if "ssl.ca.location" in options:
        found.update({"ssl.truststore.type": "PEM", "ssl.truststore.location": options["ssl.ca.location"]})
    if "sasl.username" in options:
        mechanism = found.get("sasl.mechanism", "")
        if mechanism not in _LOGIN_MODULES:
            msg = (
                f"Setting `kafka.options` has sasl.username, but sasl.mechanism is {mechanism or 'missing'}, expected one of "
                f"{', '.join(_LOGIN_MODULES)}; correct it, or leave the user name out."
            )
            raise UsageError(msg)
        user, password = (_quoted(options.get(name, "")) for name in ("sasl.username", "sasl.password"))
        module = f"org.apache.kafka.common.security.{_LOGIN_MODULES[mechanism]}"
        found["sasl.jaas.config"] = f"{module} required username={user} password={password};"
    return found


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def wait_for_topic(settings: Settings) -> TopicState:
    """Ask for the topic until the broker answers, with exponential backoff and jitter.

    Raises TransientError after `kafka.startup_timeout_seconds`, UsageError where the broker has no such topic, or where it or
    the client library refuses the options.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=10),
        stop=tenacity.stop_after_delay(settings.kafka.startup_timeout_seconds),
        before_sleep=lambda state: _LOG.warning(
            "broker does not answer, trying again", attempt=state.attempt_number, brokers=bootstrap_servers(settings)
        ),
    )
    try:
        return retrying(_describe, settings)
    except tenacity.RetryError:
        msg = (
            f"No Kafka broker answered at {bootstrap_servers(settings)} within {settings.kafka.startup_timeout_seconds:g} s; "
            "check that it runs and that `kafka.bootstrap_servers` and `kafka.options` are right (playbooks/kafka-outage.md)."
        )
        raise TransientError(msg) from None
    except KafkaException as error:
        refusal = error.args[0]
        msg = (
            f"Kafka at {bootstrap_servers(settings)} cannot be used ({refusal.name()}: {refusal.str()}); correct `kafka.options`."
        )
        raise UsageError(msg) from None


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, (KafkaException, TimeoutError)) and is_worth_retrying(error)


class TopicWatch:
    """Asks for the topic's id again and again, by one client while it is answered: some milliseconds each time."""

    def __init__(self, settings: Settings) -> None:
        """A watch on the settings' topic."""
        self._settings = settings
        self._admin = _admin(settings)

    def topic_id(self) -> str:
        """Kafka's id of the topic now; raises TransientError where no broker says it within some 20 s."""
        # The broker that is asked may be one of several that has just died: no reason to stop the stream.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random(0.2, 0.6),
            stop=tenacity.stop_after_attempt(4),
            before_sleep=self._connect_anew,
        )
        try:
            return retrying(self._ask)
        except tenacity.RetryError:
            msg = (
                f"Kafka at {bootstrap_servers(self._settings)} does not say whether the topic {self._settings.kafka.topic} is "
                "the one that was read so far; check that it runs, and that nobody deleted the topic (playbooks/kafka-outage.md)."
            )
            raise TransientError(msg) from None

    def _connect_anew(self, _state: tenacity.RetryCallState) -> None:
        # A client can stay with the dead broker: some were not answered in 54 s, though the others were well after three.
        self._admin = _admin(self._settings)

    def _ask(self) -> str:
        topic = self._settings.kafka.topic
        described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=_CALL_SECONDS)[topic]
        return str(described.result(_CALL_SECONDS).topic_id)


def _admin(settings: Settings, on_error: Callable[[KafkaError], None] | None = None) -> AdminClient:
    silent = logging.getLogger("lakehouse.librdkafka")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    # librdkafka speaks to standard error by itself unless it is given a logger.
    config: dict[str, Any] = {**client_config(settings), "socket.timeout.ms": int(_CALL_SECONDS * 1000)}
    if on_error is not None:
        config["error_cb"] = on_error
    return AdminClient(config, logger=silent)


def _describe(settings: Settings) -> TopicState:
    told: list[KafkaError] = []
    admin = _admin(settings, told.append)
    try:
        return _ask_for_topic(admin, settings)
    except (KafkaException, TimeoutError):
        # Of a login that fails only the callback hears; the call itself says that no broker was reached.
        admin.poll(0)
        refused = [error for error in told if error.code() == KafkaError._AUTHENTICATION]
        if refused:
            raise KafkaException(refused[-1]) from None
        raise


def _ask_for_topic(admin: AdminClient, settings: Settings) -> TopicState:
    topic = settings.kafka.topic
    metadata = admin.list_topics(timeout=_CALL_SECONDS)
    if topic not in metadata.topics:
        msg = f"Topic {topic} does not exist on {bootstrap_servers(settings)}; create it or correct `kafka.topic`."
        raise UsageError(msg)
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(_CALL_SECONDS)
    partitions = [TopicPartition(topic, part) for part in sorted(metadata.topics[topic].partitions)]
    return TopicState(
        topic=topic,
        topic_id=str(described.topic_id),
        start=_offsets(admin, partitions, OffsetSpec.earliest()),
        end=_offsets(admin, partitions, OffsetSpec.latest()),
        stable=_offsets(admin, partitions, OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED),
    )


def offsets_at(settings: Settings, topic: TopicState, day: date) -> dict[int, int]:
    """For each partition the first offset with a Kafka timestamp of `day` (UTC) or later; its end where there is none.

    Raises TransientError where no broker says it.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    partitions = [TopicPartition(topic.topic, part) for part in topic.end]
    # Kafka's timestamps begin with 1970, and it gives numbers below zero a meaning of their own.
    moment = OffsetSpec.for_timestamp(max(0, int(midnight.timestamp() * 1000)))
    try:
        found = _offsets(_admin(settings), partitions, moment)
    except (KafkaException, TimeoutError):
        msg = (
            f"Kafka at {bootstrap_servers(settings)} does not say where the day {day} begins in {topic.topic}; see that it runs "
            "and try again (playbooks/kafka-outage.md)."
        )
        raise TransientError(msg) from None
    # The broker's answer for "none" is -1.
    return {part: topic.end[part] if offset < 0 else offset for part, offset in found.items()}


def _offsets(admin: AdminClient, partitions: list[TopicPartition], spec: OffsetSpec, **more: IsolationLevel) -> dict[int, int]:
    futures = admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=_CALL_SECONDS, **more)
    return {part.partition: future.result(_CALL_SECONDS).offset for part, future in futures.items()}
