"""The way to Kafka: a real broker, one that is absent, and topics that are not there."""

from __future__ import annotations

import json
import socket
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from pipelines.lake import kafka
from pipelines.lake.errors import TransientError, UsageError
from pipelines.lake.settings import Settings, load_settings


def _settings(**overrides: Any) -> Settings:
    tree = {"kafka.startup_timeout_seconds": 2.0, **{name.replace("__", "."): value for name, value in overrides.items()}}
    return load_settings(None, environ={}, overrides=tree)


def test_broker_that_is_down_is_named_after_the_timeout() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()

    with pytest.raises(TransientError, match=f"No Kafka broker answered at {server} within 2 s") as caught:
        kafka.wait_for_topic(_settings(kafka__bootstrap_servers=server))
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
        kafka.wait_for_topic(settings)
    assert "hunter2" not in str(caught.value)


def test_topic_is_described_by_id_and_offsets(broker: EmbeddedBroker) -> None:
    ensure_topic(broker.bootstrap_servers, "common-kafka", 3)
    settings = _settings(kafka__bootstrap_servers=broker.bootstrap_servers, kafka__topic="common-kafka")
    state = kafka.wait_for_topic(settings)

    assert (state.start, state.end) == ({0: 0, 1: 0, 2: 0}, {0: 0, 1: 0, 2: 0})
    assert state.topic_id == kafka.wait_for_topic(settings).topic_id != ""


def test_unknown_topic_is_not_waited_for(broker: EmbeddedBroker) -> None:
    settings = _settings(
        kafka__bootstrap_servers=broker.bootstrap_servers, kafka__topic="no-such", kafka__startup_timeout_seconds=300.0
    )

    with pytest.raises(UsageError, match="Topic no-such does not exist"):
        kafka.wait_for_topic(settings)


def test_embedded_broker_is_looked_up_in_the_state_folder(tmp_path: Path) -> None:
    settings = _settings(lake__state_dir=str(tmp_path))
    with pytest.raises(UsageError, match="start it with `lakehouse kafka start`"):
        kafka.bootstrap_servers(settings)
    state = tmp_path / "kafka" / "broker.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"pid": 1, "bootstrap_servers": "127.0.0.1:1"}), encoding="utf-8")

    assert kafka.bootstrap_servers(settings) == "127.0.0.1:1"
    state.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="does not run"):
        kafka.bootstrap_servers(settings)


def test_options_pass_through_to_both_clients() -> None:
    options = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
    settings = _settings(kafka__bootstrap_servers="b:1", kafka__topic="t", kafka__options=options)
    source = kafka.source_options(settings)

    assert kafka.client_config(settings) == {**options, "bootstrap.servers": "b:1"}
    assert {f"kafka.{name}": value for name, value in options.items()}.items() <= source.items()
    assert (source["subscribe"], source["failOnDataLoss"], source["kafka.bootstrap.servers"]) == ("t", "true", "b:1")


def test_offsets_of_a_day_are_found_and_a_broker_that_is_down_is_named(broker: EmbeddedBroker) -> None:
    ensure_topic(broker.bootstrap_servers, "common-kafka-days", 2)
    settings = _settings(kafka__bootstrap_servers=broker.bootstrap_servers, kafka__topic="common-kafka-days")
    topic = kafka.wait_for_topic(settings)
    for day in (date.min, date(1969, 12, 31), date(2026, 1, 28), date.max):
        assert kafka.offsets_at(settings, topic, day) == {0: 0, 1: 0}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{free.getsockname()[1]}"

    with pytest.raises(TransientError, match=f"Kafka at {server} does not say where the day 2026-01-28 begins"):
        kafka.offsets_at(_settings(kafka__bootstrap_servers=server), topic, date(2026, 1, 28))
