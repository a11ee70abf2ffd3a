"""Where the brokers are, and one spelling of login and certificates in the settings for both Kafka clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake.errors import UsageError
from pipelines.lake.kafka.options import bootstrap_servers, client_config, java_options, source_options
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings

LOGIN = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "hunter2"}


def test_user_name_becomes_a_login_module() -> None:
    assert java_options(LOGIN) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": 'org.apache.kafka.common.security.scram.ScramLoginModule required username="u" password="hunter2";',
    }


def test_quotes_and_backslashes_stay_inside_the_password() -> None:
    config = java_options({**LOGIN, "sasl.password": 'a"b\\c'})["sasl.jaas.config"]
    assert config.endswith(r'password="a\"b\\c";')


def test_certificate_file_becomes_a_pem_truststore() -> None:
    options = java_options({"security.protocol": "SSL", "ssl.ca.location": "/etc/ca.pem"})
    assert options == {"security.protocol": "SSL", "ssl.truststore.type": "PEM", "ssl.truststore.location": "/etc/ca.pem"}


def test_other_options_pass_through() -> None:
    assert java_options({"client.id": "x", "request.timeout.ms": "5"}) == {"client.id": "x", "request.timeout.ms": "5"}


@pytest.mark.parametrize("mechanism", [{}, {"sasl.mechanism": "GSSAPI"}])
def test_user_name_without_its_mechanism_is_one_sentence(mechanism: dict[str, str]) -> None:
    options = {key: value for key, value in LOGIN.items() if key != "sasl.mechanism"} | mechanism
    with pytest.raises(UsageError, match=r"expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; correct it") as raised:
        java_options(options)
    assert "hunter2" not in str(raised.value)


def _settings(**overrides: Any) -> Settings:
    return load_settings(None, environ={}, overrides={name.replace("__", "."): value for name, value in overrides.items()})


def test_embedded_broker_is_looked_up_in_the_state_folder(tmp_path: Path) -> None:
    settings = _settings(lake__state_dir=str(tmp_path))
    with pytest.raises(UsageError, match="start it with `lakehouse kafka start`"):
        bootstrap_servers(settings)
    state = tmp_path / "kafka" / "broker.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"pid": 1, "bootstrap_servers": "127.0.0.1:1"}), encoding="utf-8")

    assert bootstrap_servers(settings) == "127.0.0.1:1"
    state.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="does not run"):
        bootstrap_servers(settings)


def test_options_pass_through_to_both_clients() -> None:
    options = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
    settings = _settings(kafka__bootstrap_servers="b:1", kafka__topic="t", kafka__options=options)
    source = source_options(settings)

    assert client_config(settings) == {**options, "bootstrap.servers": "b:1"}
    assert {f"kafka.{name}": value for name, value in options.items()}.items() <= source.items()
    assert (source["subscribe"], source["failOnDataLoss"], source["kafka.bootstrap.servers"]) == ("t", "true", "b:1")
