"""Where Kafka's brokers are, and the options of Spark's source, Java's clients and confluent-kafka's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pipelines.lake.errors import UsageError
from pipelines.lake.settings import EMBEDDED, Settings
from pipelines.lake.storage.local_files import read_text

_LOGIN_MODULES = {
    "PLAIN": "plain.PlainLoginModule",
    "SCRAM-SHA-256": "scram.ScramLoginModule",
    "SCRAM-SHA-512": "scram.ScramLoginModule",
}


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
