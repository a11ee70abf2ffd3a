"""Asks Kafka for the topic: its id, and the first, next and last stable offset of each partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import tenacity
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelines.lake.causes.classify import is_worth_retrying
from pipelines.lake.errors import DataLossError, LakehouseError, TransientError, UsageError
from pipelines.lake.kafka.admin import asking_admin, describe_topic
from pipelines.lake.kafka.offsets import FIRST, LAST_STABLE, NEXT, SilentPartitionsError, read_offsets
from pipelines.lake.kafka.options import client_config
from pipelines.lake.logging import Log
from pipelines.lake.settings import Settings

_LOG = Log("kafka")
TOPIC_ID_PROPERTY = "lakehouse.topicId"
"""Property of the Bronze table with Kafka's id of the topic: a topic that was recreated is another one, whatever its name."""
_CALL_SECONDS = 5.0
"""How long a job gives a broker for one question, before it asks again."""
_NAMED_PARTITIONS = 10
"""A sentence names so many partitions and counts the others."""
_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION)
"""The second: the name is one that no topic can have."""


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


class NoTopicError(UsageError):
    """Raised where a broker answers and has no such topic."""

    def __init__(self, servers: str, topic: str) -> None:
        super().__init__(f"Topic {topic} does not exist on {servers}; create it or correct `kafka.topic`.")
        self.servers = servers


class NoAnswerError(TransientError):
    """Raised where no broker answers, or not for every partition.

    `missing` says for how many and which partitions, if the broker answers for the others; `refusal` is Kafka's word, or the
    client library's, where asking again does not help: a login or an option is wrong.
    """

    def __init__(self, servers: str, missing: str = "", refusal: KafkaError | None = None) -> None:
        super().__init__(
            f"Kafka at {servers} does not answer{missing}; start it, or correct `kafka.bootstrap_servers` and `kafka.options` "
            "(playbooks/kafka-outage.md)."
        )
        self.servers = servers
        self.missing = missing
        self.refusal = refusal


def ask_topic(settings: Settings, seconds: float) -> TopicState:
    """Ask once: for the topic, then for all offsets together; each of the two answers may take `seconds`.

    Raises NoAnswerError, NoTopicError, UsageError where the embedded broker does not run, UnreadableError where nobody can
    tell. A state that is returned has every partition of the topic.
    """
    topic = settings.kafka.topic
    with _admin(settings, seconds) as admin:
        described = describe_topic(admin, topic, seconds)
        partitions = [TopicPartition(topic, number) for number in sorted(one.id for one in described.partitions)]
        answers = read_offsets(admin, partitions, (FIRST, NEXT, LAST_STABLE), seconds)
    start, end, stable = ({place.partition: offset for place, offset in found.items()} for found in answers)
    return TopicState(topic=topic, topic_id=str(described.topic_id), start=start, end=end, stable=stable)


def wait_for_topic(settings: Settings) -> TopicState:
    """Ask for the topic until the broker answers, with exponential backoff and jitter.

    Raises TransientError after `kafka.startup_timeout_seconds`, UsageError where the broker has no such topic, or where it or
    the client library refuses the options.
    """
    seconds = settings.kafka.startup_timeout_seconds
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, NoAnswerError) and error.refusal is None),
        wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=10),
        stop=tenacity.stop_after_delay(seconds),
        before_sleep=_say_again,
        reraise=True,
    )
    try:
        return retrying(ask_topic, settings, _CALL_SECONDS)
    except NoAnswerError as error:
        raise _given_up(error, seconds) from None


def offsets_at(settings: Settings, topic: TopicState, day: date) -> dict[int, int]:
    """For each partition the first offset with a Kafka timestamp of `day` (UTC) or later; its end where there is none.

    Raises TransientError where no broker says it, or not of every partition.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    partitions = [TopicPartition(topic.topic, part) for part in topic.end]
    # Kafka's timestamps begin with 1970, and it gives numbers below zero a meaning of their own.
    moment = OffsetSpec.for_timestamp(max(0, int(midnight.timestamp() * 1000)))
    try:
        with _admin(settings, _CALL_SECONDS) as admin:
            [found] = read_offsets(admin, partitions, [(moment, IsolationLevel.READ_UNCOMMITTED)], _CALL_SECONDS)
    except NoAnswerError as error:
        msg = (
            f"Kafka at {error.servers} does not say where the day {day} begins in {topic.topic}{error.missing}; see that it runs "
            "and try again (playbooks/kafka-outage.md)."
        )
        raise TransientError(msg) from None
    # The broker's answer for "none" is -1.
    return {place.partition: topic.end[place.partition] if offset < 0 else offset for place, offset in found.items()}


@contextmanager
def _admin(settings: Settings, seconds: float) -> Iterator[AdminClient]:
    """A client for one round of questions; what fails in the block becomes NoTopicError or NoAnswerError."""
    config, heard = client_config(settings), list[KafkaError]()
    admin = None
    try:
        admin = asking_admin(config, seconds, heard.append)
        yield admin
    except (KafkaException, TimeoutError) as error:
        if admin is not None:
            # Of a login that fails only the callback hears; the call itself says that no broker was reached.
            admin.poll(0)
        logins = [KafkaException(one) for one in heard if one.code() == KafkaError._AUTHENTICATION]
        raise _own_error(logins[-1] if logins else error, config["bootstrap.servers"], settings.kafka.topic) from None


def _own_error(error: KafkaException | TimeoutError, servers: str, topic: str) -> LakehouseError:
    if isinstance(error, SilentPartitionsError):
        return NoAnswerError(servers, _listed(error))
    if isinstance(error, TimeoutError):
        return NoAnswerError(servers)
    if error.args[0].code() in _NO_TOPIC:
        return NoTopicError(servers, topic)
    return NoAnswerError(servers, refusal=None if is_worth_retrying(error) else error.args[0])


def _listed(error: SilentPartitionsError) -> str:
    """The partitions without an answer; nothing where none has one: then it is the broker that does not answer."""
    numbers = sorted(place.partition for place in error.partitions)
    if len(numbers) == error.asked:
        return ""
    named = ", ".join(map(str, numbers[:_NAMED_PARTITIONS])) + (", ..." if len(numbers) > _NAMED_PARTITIONS else "")
    return f" for {len(numbers)} of {error.asked} partitions ({named})"


def _say_again(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    brokers = error.servers if isinstance(error, NoAnswerError) else ""
    _LOG.warning("broker does not answer, trying again", attempt=state.attempt_number, brokers=brokers)


def _given_up(error: NoAnswerError, seconds: float) -> LakehouseError:
    if error.refusal is not None:
        why = f"{error.refusal.name()}: {error.refusal.str()}"
        return UsageError(f"Kafka at {error.servers} cannot be used ({why}); correct `kafka.options`.")
    return TransientError(
        f"No Kafka broker answered at {error.servers}{error.missing} within {seconds:g} s; "
        "check that it runs and that `kafka.bootstrap_servers` and `kafka.options` are right (playbooks/kafka-outage.md)."
    )


def refuse_recreated_topic(bronze: str, known: str | None, topic: str, topic_id: str) -> None:
    """Raise DataLossError where the topic has another id than the `known` one, of which the table at `bronze` has records."""
    if known != topic_id:
        msg = (
            f"Bronze at {bronze} holds topic {topic} with id {known}, but Kafka's has id {topic_id}: it was made "
            "anew, and its offsets mean other records; give the new topic a lake of its own (`lake.root`, `lake.checkpoints`); "
            "see playbooks/kafka-outage.md."
        )
        raise DataLossError(msg)
