"""Sends a plan's records to Kafka and writes what was acknowledged to the op ledger."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from lakehouse.local.access_log import access_log_rows, count_lines, load_pseudonym_key
from lakehouse.local.event_plan import Limits, ProducePlan
from lakehouse.local.events import live_rows, paced, scheduled_rows
from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.sender import Sender
from lakehouse.proof.event_rows import Rows
from lakehouse.proof.op_ledger import OpLedger
from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.kafka.options import bootstrap_servers
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.logging import Log
from pipelines.lake.settings import EMBEDDED, Settings

_LOG = Log("producer")
_MOST_AHEAD_MS = 55 * 60_000
"""A broker refuses timestamps more than an hour ahead of its clock (its default)."""


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
    _ensure_destination(settings)
    source = _source(settings, plan, now, stop)
    run_id = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    sender = Sender(settings, OpLedger(ledger_dir, run_id, settings.kafka.topic), stop)
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


def _ensure_destination(settings: Settings) -> None:
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
