"""How long an operator's command waits for Kafka, and a way to ask it beside other work."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from pipelines.lake.errors import LakehouseError
from pipelines.lake.kafka.topic import TopicState, ask_topic
from pipelines.lake.settings import Settings

PATIENCE_SECONDS = 0.8
"""For commands that only look: they say what they know within two seconds, also when Kafka is down."""
DECIDING_SECONDS = 5.0
"""For commands that need the answer to decide."""


def ask_aside(settings: Settings) -> Future[TopicState | LakehouseError]:
    """Ask in a thread, with little patience: a broker that is down costs no time beside imports and tables."""
    pool = ThreadPoolExecutor(1)
    asked = pool.submit(_state_or_error, settings)
    pool.shutdown(wait=False)
    return asked


def _state_or_error(settings: Settings) -> TopicState | LakehouseError:
    try:
        return ask_topic(settings, PATIENCE_SECONDS)
    except LakehouseError as error:
        return error
