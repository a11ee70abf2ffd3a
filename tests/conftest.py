"""Fixtures of several test folders: each server is started once, on a free port, in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakehouse.local.kafka_broker import EmbeddedBroker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A running Kafka broker for the whole session: give each test a topic of its own."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as running:
        yield running
