"""Ends a producer's transaction and waits for its marker."""

from __future__ import annotations

import time

from confluent_kafka import Producer

from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.settings_sources import load_settings


def end_transaction(producer: Producer, bootstrap_servers: str, topic: str, *, commit: bool = True) -> None:
    """Commit or abort; returns when no transaction of the topic is open.

    The broker answers before it has written the markers: a record that is sent at once can come before them, and a reader
    of committed records still stops in front of what was committed.
    """
    (producer.commit_transaction if commit else producer.abort_transaction)(30)
    where = {"kafka.bootstrap_servers": bootstrap_servers, "kafka.topic": topic}
    settings = load_settings(None, environ={}, overrides=where)
    deadline = time.monotonic() + 30
    while (state := wait_for_topic(settings)).readable != state.end:
        assert time.monotonic() < deadline, f"the topic has an open transaction: {state}"
        time.sleep(0.05)
