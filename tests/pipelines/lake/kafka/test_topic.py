"""The one reader of the topic: a real broker, one that is absent or answers in part, and topics that are not there."""

from __future__ import annotations

import socket
import time
from datetime import date
from typing import Any

import pytest
from confluent_kafka import KafkaError

from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from pipelines.lake.errors import TransientError, UsageError
from pipelines.lake.kafka.topic import NoAnswerError, ask_topic, offsets_at, wait_for_topic
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from tests.kafka_door import door, with_error


def _settings(**overrides: Any) -> Settings:
    tree = {"kafka.startup_timeout_seconds": 2.0, **{name.replace("__", "."): value for name, value in overrides.items()}}
    return load_settings(None, environ={}, overrides=tree)


def _port(broker: EmbeddedBroker) -> int:
    return int(broker.bootstrap_servers.rpartition(":")[2])


def test_broker_that_is_down_is_named_after_the_timeout() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()

    with pytest.raises(TransientError, match=f"No Kafka broker answered at {server} within 2 s") as caught:
        wait_for_topic(_settings(kafka__bootstrap_servers=server))
    assert 1.5 < time.monotonic() - began < 30
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u"},
            "_AUTHENTICATION: .*handshake",
        ),
        ({"no.such.option": "1"}, "_INVALID_ARG: No such configuration property"),
    ],
)
def test_login_or_option_that_is_refused_is_not_waited_for(broker: EmbeddedBroker, options: dict[str, str], reason: str) -> None:
    login = {"sasl.password": "hunter2"} if "sasl.username" in options else {}
    settings = _settings(
        kafka__bootstrap_servers=broker.bootstrap_servers,
        kafka__options={**options, **login},
        kafka__startup_timeout_seconds=300.0,
    )

    with pytest.raises(UsageError, match=f"cannot be used \\({reason}.*; correct `kafka.options`") as caught:
        wait_for_topic(settings)
    assert "hunter2" not in str(caught.value)


def test_topic_is_described_by_id_and_offsets(broker: EmbeddedBroker) -> None:
    ensure_topic(broker.bootstrap_servers, "common-kafka", 3)
    settings = _settings(kafka__bootstrap_servers=broker.bootstrap_servers, kafka__topic="common-kafka")
    state = wait_for_topic(settings)

    assert (state.start, state.end) == ({0: 0, 1: 0, 2: 0}, {0: 0, 1: 0, 2: 0})
    assert state.topic_id == wait_for_topic(settings).topic_id != ""


def test_unknown_topic_is_not_waited_for(broker: EmbeddedBroker) -> None:
    settings = _settings(
        kafka__bootstrap_servers=broker.bootstrap_servers, kafka__topic="no-such", kafka__startup_timeout_seconds=300.0
    )

    with pytest.raises(UsageError, match="Topic no-such does not exist"):
        wait_for_topic(settings)
    with pytest.raises(UsageError, match="Topic no name of a topic does not exist"):
        wait_for_topic(settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"topic": "no name of a topic"})}))


def test_offsets_of_a_day_are_found_and_a_broker_that_is_down_is_named(broker: EmbeddedBroker) -> None:
    ensure_topic(broker.bootstrap_servers, "common-kafka-days", 2)
    settings = _settings(kafka__bootstrap_servers=broker.bootstrap_servers, kafka__topic="common-kafka-days")
    topic = wait_for_topic(settings)
    for day in (date.min, date(1969, 12, 31), date(2026, 1, 28), date.max):
        assert offsets_at(settings, topic, day) == {0: 0, 1: 0}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{free.getsockname()[1]}"

    with pytest.raises(TransientError, match=f"Kafka at {server} does not say where the day 2026-01-28 begins"):
        offsets_at(_settings(kafka__bootstrap_servers=server), topic, date(2026, 1, 28))


def test_partition_without_an_answer_is_named(broker: EmbeddedBroker) -> None:
    topic = "common-kafka-part"
    ensure_topic(broker.bootstrap_servers, topic, 3)
    of_topic = {"kafka__topic": topic, "kafka__startup_timeout_seconds": 1.0}
    complete = wait_for_topic(_settings(**of_topic, kafka__bootstrap_servers=broker.bootstrap_servers))
    missing = r"for 1 of 3 partitions \(1\)"
    with door(_port(broker), with_error(KafkaError.NOT_LEADER_FOR_PARTITION, topic, 1)) as (server, changed):
        settings = _settings(**of_topic, kafka__bootstrap_servers=server)
        with pytest.raises(NoAnswerError, match=f"Kafka at {server} does not answer {missing}; start it, or correct"):
            ask_topic(settings, 5)
        with pytest.raises(TransientError, match=f"No Kafka broker answered at {server} {missing} within 1 s"):
            wait_for_topic(settings)
        with pytest.raises(TransientError, match=f"begins in {topic} {missing}; see that it runs"):
            offsets_at(settings, complete, date(2026, 1, 28))
    assert changed


def test_offset_that_is_refused_for_good_is_not_waited_for(broker: EmbeddedBroker) -> None:
    topic = "common-kafka-refused"
    ensure_topic(broker.bootstrap_servers, topic, 2)
    with door(_port(broker), with_error(KafkaError.TOPIC_AUTHORIZATION_FAILED, topic, 0)) as (server, _):
        settings = _settings(kafka__bootstrap_servers=server, kafka__topic=topic, kafka__startup_timeout_seconds=300.0)
        with pytest.raises(UsageError, match=r"cannot be used \(TOPIC_AUTHORIZATION_FAILED: .*correct `kafka.options`"):
            wait_for_topic(settings)


def test_broker_that_gives_no_offset_at_all_does_not_answer(broker: EmbeddedBroker) -> None:
    topic = "common-kafka-silent"
    ensure_topic(broker.bootstrap_servers, topic, 2)
    complete = wait_for_topic(_settings(kafka__bootstrap_servers=broker.bootstrap_servers, kafka__topic=topic))
    with door(_port(broker)) as (server, swallowed):
        settings = _settings(kafka__bootstrap_servers=server, kafka__topic=topic)
        with pytest.raises(NoAnswerError, match=f"Kafka at {server} does not answer; start it, or correct"):
            ask_topic(settings, 1)
        # Taken for "no record of that day or later", the silence would step over all that the topic has.
        with pytest.raises(TransientError, match=f"begins in {topic}; see that it runs"):
            offsets_at(settings, complete, date(2026, 1, 28))
    assert swallowed
