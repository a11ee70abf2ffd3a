"""Hands a run's records to librdkafka and sorts the acknowledgements into parts of the op ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer

from lakehouse.proof.event_rows import Rows
from lakehouse.proof.op_ledger import LedgerPart, OpLedger, body_writer
from pipelines.lake.errors import TransientError, UsageError
from pipelines.lake.kafka.admin import silent_log
from pipelines.lake.kafka.options import client_config
from pipelines.lake.settings import Settings

_PART_ROWS = 250_000
_FLUSH_SECONDS = 1.0
_STOP_SECONDS = 20.0
"""A run that was told to stop waits no longer than this for its acknowledgements."""
_DEFAULTS: dict[str, Any] = {
    "compression.type": "lz4",
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 262_144,
    # As the Java client does, so that other producers' records of a customer lie in the same partition.
    "partitioner": "murmur2_random",
    "message.timeout.ms": 120_000,
}
_FIXED: dict[str, Any] = {"acks": "all", "enable.idempotence": True}
_OnAck = Callable[[KafkaError | None, Message | None], None]


class Sender:
    """Sends the records of one run; `kinds` counts them by kind, `reason` says why the last failed one failed."""

    def __init__(self, settings: Settings, ledger: OpLedger, stop: Event) -> None:
        config = {**_DEFAULTS, **client_config(settings), **_FIXED, "error_cb": self._on_error}
        self._producer = Producer(config, logger=silent_log())
        self._topic = settings.kafka.topic
        self._ledger = ledger
        self._stop = stop
        self._body = body_writer(settings.silver.late_after_seconds * 1000)
        self._parts = [LedgerPart(_PART_ROWS)]
        self._fatal: KafkaError | None = None
        self._append_time = False
        self._written = self._dropped = 0
        self.kinds: Counter[str] = Counter()
        self.reason = "no reason given"

    @property
    def acked(self) -> int:
        """Records that Kafka has acknowledged."""
        return self._written + sum(part.acked for part in self._parts)

    @property
    def failed(self) -> int:
        """Records that Kafka has not taken and will not take."""
        return self._dropped + sum(part.failed for part in self._parts)

    def send(self, rows: Rows) -> None:
        """Queue the rows, waiting while the queue is full, and write ledger parts that are complete."""
        part = self._parts[-1]
        if part.rows + len(rows) > _PART_ROWS:
            self._parts.append(part := LedgerPart(_PART_ROWS))
        first = part.add(self._body(rows))
        self.kinds.update(rows.kind)
        for position, (value, key, kafka_ms) in enumerate(zip(rows.value, rows.key, rows.kafka_ms, strict=True), first):
            self._queue(value, key, kafka_ms, partial(self._on_ack, part, position))
        self._producer.poll(0)
        self._check()
        self._write(lambda each: each is not self._parts[-1] and each.settled)

    def finish(self, on_progress: Callable[[int], None] | None) -> None:
        """Wait until every record is acknowledged or has failed for good, then write the rest of the ledger."""
        waited = 0.0
        while self._producer.flush(_FLUSH_SECONDS):
            if on_progress:
                on_progress(self.acked)
            waited += _FLUSH_SECONDS
            if self._stop.is_set() and waited >= _STOP_SECONDS:
                self._producer.purge()
        self._write(lambda _: True)
        if on_progress:
            on_progress(self.acked)

    def _queue(self, value: bytes | None, key: bytes | None, kafka_ms: int, on_ack: _OnAck) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=on_ack, timestamp=kafka_ms)
            except BufferError as error:
                if self._stop.is_set():
                    on_ack(KafkaError(KafkaError._QUEUE_FULL, str(error)), None)
                    return
                self._producer.poll(0.1)
            except KafkaException as error:  # refused at once, such as a message that is too large
                on_ack(error.args[0], None)
                return
            else:
                return

    def _on_ack(self, part: LedgerPart, position: int, error: KafkaError | None, message: Message | None) -> None:
        if error is not None or message is None:
            part.fail(position)
            self.reason = str(error.str()) if error else self.reason
            return
        part.ack(position, message.partition(), message.offset())  # type: ignore[arg-type]  # both known once acknowledged
        if position == 0 and message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME:
            self._append_time = True

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error

    def _check(self) -> None:
        if self._append_time:
            msg = (
                f"Topic {self._topic} stamps records itself (message.timestamp.type=LogAppendTime), expected CreateTime, "
                "as the op ledger says when each record was made; change the topic's configuration."
            )
            raise UsageError(msg)
        if self._fatal is not None:
            msg = f"The Kafka producer had to stop ({self._fatal.str()}); check the broker, then produce again."
            raise TransientError(msg)

    def _write(self, ready: Callable[[LedgerPart], bool]) -> None:
        for part in [part for part in self._parts if ready(part)]:
            self._ledger.write(part)
            self._written += part.acked
            self._dropped += part.failed
            self._parts.remove(part)
