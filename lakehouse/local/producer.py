"""Sends a plan's records to Kafka and writes what was acknowledged to the op ledger."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer

from lakehouse.local.access_log import access_log_rows, count_lines, load_pseudonym_key
from lakehouse.local.event_plan import Limits, ProducePlan
from lakehouse.local.events import live_rows, paced, scheduled_rows
from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.proof.event_rows import Rows
from lakehouse.proof.op_ledger import LedgerPart, OpLedger, body_writer
from pipelines.lake.errors import LakehouseError, TransientError, UsageError
from pipelines.lake.kafka.admin import silent_log
from pipelines.lake.kafka.options import bootstrap_servers, client_config
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.logging import Log
from pipelines.lake.settings import EMBEDDED, Settings

_LOG = Log("producer")
_PART_ROWS = 250_000
_FLUSH_SECONDS = 1.0
_STOP_SECONDS = 20.0
"""A run that was told to stop waits no longer than this for its acknowledgements."""
_MOST_AHEAD_MS = 55 * 60_000
"""A broker refuses timestamps more than an hour ahead of its clock (its default)."""
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


@dataclass(frozen=True)
class ProduceSummary:
    """What one run has sent."""

    run_id: str
    topic: str
    acked: int
    failed: int
    kinds: dict[str, int]
    """Records handed to Kafka, by kind."""
    seconds: float
    ledger_dir: Path
    interrupted: bool

    @property
    def events_per_second(self) -> float:
        """Acknowledged records per second of the whole run, ledger included."""
        return self.acked / self.seconds if self.seconds > 0 else 0.0


def produce_events(
    settings: Settings,
    plan: ProducePlan,
    ledger_dir: Path,
    on_progress: Callable[[int], None] | None = None,
    *,
    stop: Event | None = None,
) -> ProduceSummary:
    """Send the plan's records with acks=all, idempotently, and write the op ledger; `on_progress` gets the total acknowledged.

    Setting `stop` ends the run early: what was acknowledged until then is in the ledger, and the summary says `interrupted`.
    Raises TransientError where no broker answers, UsageError where the topic is missing, and LakehouseError at the end where
    records were not acknowledged (those are not in the ledger, all others are).
    """
    stop = stop or Event()
    now = datetime.now(UTC)
    _check_schedule(plan, now)
    ensure_destination(settings)
    source = _source(settings, plan, now, stop)
    run_id = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    sender = _Sender(settings, OpLedger(ledger_dir, run_id, settings.kafka.topic), stop)
    started = time.monotonic()
    try:
        for rows in source:
            sender.send(rows)
            if on_progress:
                on_progress(sender.acked)
            if stop.is_set():
                break
    finally:
        # Also after an error in the source: what was sent is sent, and the ledger has to say so.
        sender.finish(on_progress)
    summary = ProduceSummary(
        run_id,
        settings.kafka.topic,
        sender.acked,
        sender.failed,
        dict(sender.kinds),
        time.monotonic() - started,
        ledger_dir,
        stop.is_set(),
    )
    _LOG.debug("produced", run_id=run_id, acked=summary.acked, failed=summary.failed)
    if sender.failed and not stop.is_set():
        msg = (
            f"{sender.failed} of {sender.failed + sender.acked} records were not acknowledged ({sender.reason}); the op ledger "
            f"in {ledger_dir} holds the {sender.acked} others. Check the broker, then produce again."
        )
        raise LakehouseError(msg)
    return summary


def ensure_destination(settings: Settings) -> None:
    """Wait until the broker answers and has the topic; on the embedded broker a missing topic is created.

    Raises TransientError after `kafka.startup_timeout_seconds`, UsageError where an outside broker has no such topic.
    """
    if settings.kafka.bootstrap_servers != EMBEDDED:
        wait_for_topic(settings)
    else:
        ensure_topic(
            bootstrap_servers(settings),
            settings.kafka.topic,
            settings.kafka.partitions,
            timeout=settings.kafka.startup_timeout_seconds,
        )


def _check_schedule(plan: ProducePlan, now: datetime) -> None:
    if plan.rate is not None or plan.access_log is not None:
        return
    start_ms, step_ms = plan.schedule(now)
    ahead_ms = start_ms + step_ms * (plan.count or 0) - now.timestamp() * 1000
    if ahead_ms > _MOST_AHEAD_MS:
        msg = (
            f"The schedule ends {ahead_ms / 3_600_000:.1f} h in the future and Kafka takes timestamps at most 1 h ahead; "
            "choose an earlier start time or a shorter span."
        )
        raise UsageError(msg)


def _source(settings: Settings, plan: ProducePlan, now: datetime, stop: Event) -> Iterator[Rows]:
    limits = Limits.of(settings)
    if plan.access_log is not None:
        count_lines(plan.access_log)  # a file that breaks off must not be sent by half
        key = plan.pseudonym_key or load_pseudonym_key(Path(settings.lake.state_dir))
        lines = access_log_rows(plan.access_log, key, limits, count=plan.count, now_ms=int(now.timestamp() * 1000))
        return paced(lines, plan.rate, stop) if plan.rate else lines
    return live_rows(plan, limits, stop) if plan.rate else scheduled_rows(plan, limits, now)


class _Sender:
    """Hands records to librdkafka and sorts the acknowledgements into ledger parts."""

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
        return self._written + sum(part.acked for part in self._parts)

    @property
    def failed(self) -> int:
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
