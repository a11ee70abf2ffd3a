"""Asks a broker for offsets of partitions, and names those for which no answer came."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any

from confluent_kafka import OFFSET_INVALID, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelines.lake.causes.classify import is_worth_retrying
from pipelines.lake.kafka.admin import GRACE_SECONDS

Question = tuple[OffsetSpec, IsolationLevel]
FIRST: Question = (OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)
NEXT: Question = (OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)
LAST_STABLE: Question = (OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)


class SilentPartitionsError(TimeoutError):
    """Raised where some of the `asked` partitions, or all, have no answer; `reason` is Kafka's word on one, if there is one."""

    def __init__(self, partitions: Sequence[TopicPartition], asked: int, reason: KafkaError | None) -> None:
        super().__init__(f"no offset of {len(partitions)} of {asked} partitions")
        self.partitions = partitions
        self.asked = asked
        self.reason = reason


def read_offsets(
    admin: AdminClient, partitions: Sequence[TopicPartition], questions: Sequence[Question], seconds: float
) -> list[dict[TopicPartition, int]]:
    """For each question the offset of every partition; all are asked at once and may take `seconds`.

    Raises KafkaException where the broker refuses one for good, SilentPartitionsError where an answer is missing: what is
    returned is complete.
    """
    if not partitions:
        return [{} for _ in questions]
    asked: list[dict[TopicPartition, Future[Any]]] = [
        admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=seconds, isolation_level=level)
        for spec, level in questions
    ]
    wait([future for answers in asked for future in answers.values()], seconds + GRACE_SECONDS)
    found = [{place: _answer(future) for place, future in answers.items()} for answers in asked]
    failed = {place: answer for answers in found for place, answer in answers.items() if not isinstance(answer, int)}
    errors = [error for error in failed.values() if isinstance(error, KafkaException)]
    if refused := [error for error in errors if not is_worth_retrying(error)]:
        raise refused[0]
    if failed:
        raise SilentPartitionsError(list(failed), len(partitions), errors[0].args[0] if errors else None)
    return [{place: answer for place, answer in answers.items() if isinstance(answer, int)} for answers in found]


def _answer(future: Future[Any]) -> int | KafkaException | None:
    """The offset, Kafka's error in its place, or None where there is neither."""
    if not future.done():
        return None
    try:
        offset = int(future.result().offset)
    except KafkaException as error:
        return error
    # Of a partition whose leader does not answer in time the client says this number, and no error.
    return None if offset == OFFSET_INVALID else offset
