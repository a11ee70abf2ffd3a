"""One spelling of login and certificates in the settings serves both Kafka clients."""

from __future__ import annotations

import pytest

from pipelines.lake.errors import UsageError
from pipelines.lake.kafka import java_options

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
