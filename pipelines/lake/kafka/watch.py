"""Watches that the topic is still the one that is read."""

from __future__ import annotations

import tenacity
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipelines.lake.causes.classify import is_worth_retrying
from pipelines.lake.errors import TransientError
from pipelines.lake.kafka.admin import asking_admin, describe_topic
from pipelines.lake.kafka.options import bootstrap_servers, client_config
from pipelines.lake.settings import Settings

_CALL_SECONDS = 5.0


class TopicWatch:
    """Asks for the topic's id again and again, by one client while it is answered: some milliseconds each time."""

    def __init__(self, settings: Settings) -> None:
        """A watch on the settings' topic."""
        self._settings = settings
        self._admin = self._connect()

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
        self._admin = self._connect()

    def _connect(self) -> AdminClient:
        return asking_admin(client_config(self._settings), _CALL_SECONDS)

    def _ask(self) -> str:
        return str(describe_topic(self._admin, self._settings.kafka.topic, _CALL_SECONDS).topic_id)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, (KafkaException, TimeoutError)) and is_worth_retrying(error)
