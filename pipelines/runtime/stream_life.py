"""Runs a stream of batches: its trigger, its start, its end between two batches."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from pyspark.errors.exceptions.base import StreamingQueryException
from pyspark.sql import DataFrame
from pyspark.sql.streaming import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipelines.lake.errors import UsageError
from pipelines.lake.lease.checkpoints import CheckpointLock

AVAILABLE_NOW = "available-now"
_INTERVAL = re.compile(r"\d+\s*(milliseconds?|seconds?|minutes?|hours?)")

BatchFunction = Callable[[DataFrame, int], None]


@dataclass
class _Life:
    """What is known of a query beside what Java says: what comes back through Java is a text without its causes."""

    raised: Exception | None = None
    """What the batch function raised last."""
    lock_released: threading.Event = field(default_factory=threading.Event)


_lives: WeakKeyDictionary[StreamingQuery, _Life] = WeakKeyDictionary()
_RELEASE_SECONDS = 10.0
"""How long the lock of a stream that has ended is waited for: its thread hears of the end at the same time."""


def set_trigger(writer: DataStreamWriter, trigger: str) -> DataStreamWriter:
    """Apply a trigger given as text.

    Raises UsageError where the text is neither `available-now` nor an interval.
    """
    if trigger == AVAILABLE_NOW:
        return writer.trigger(availableNow=True)
    if not _INTERVAL.fullmatch(trigger.strip()):
        msg = f"The trigger `{trigger}` is not known; give `available-now` or an interval such as `1 second`."
        raise UsageError(msg)
    return writer.trigger(processingTime=trigger)


def start_stream(writer: DataStreamWriter, write: BatchFunction, trigger: str, lock: CheckpointLock) -> StreamingQuery:
    """Start a stream of batches for `write`; `lock` is its checkpoint's, and is released when the stream ends."""
    life = _Life()

    def remembered(batch: DataFrame, batch_id: int) -> None:
        try:
            write(batch, batch_id)
        except Exception as error:
            life.raised = error
            raise

    with lock.released_on_error():
        query = set_trigger(writer.foreachBatch(remembered), trigger).start()
    _lives[query] = life

    def give_back() -> None:
        with suppress(Exception):  # what the stream failed of is for those who started it
            query.awaitTermination()
        lock.release()
        life.lock_released.set()

    threading.Thread(target=give_back, name="give-back", daemon=True).start()
    return query


def await_query(query: StreamingQuery, stop: threading.Event) -> None:
    """Wait until `query` ends or `stop` is set; then let the running batch finish before stopping. Its checkpoint is free then.

    Raises what made the query fail; its cause is what the batch function raised, if that was it.
    """
    while query.isActive and not stop.is_set():
        with suppress(StreamingQueryException):  # raised below, with its cause
            query.awaitTermination(1)
    if query.isActive:
        drain(query)
    life = _lives.get(query)
    if life is not None:
        life.lock_released.wait(_RELEASE_SECONDS)
    failure = query.exception()
    if failure is not None:
        raise failure from (life.raised if life is not None else None)


def drain(query: StreamingQuery, rest_seconds: float = 10.0, batch_seconds: float = 50.0) -> None:
    """Stop where no batch runs, if such a moment comes within `rest_seconds`.

    A stream that is behind has none: of it the batch that runs then is the last, if it ends within `batch_seconds`. The next one
    begins at once and is cut as it begins; the next start runs it again, as after any kill.
    """
    _wait(lambda: not _runs(query), rest_seconds)
    ended = _last_ended(query)
    _wait(lambda: not _runs(query) or _last_ended(query) != ended, batch_seconds)
    query.stop()


def _wait(until: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.05)


def _runs(query: StreamingQuery) -> bool:
    return query.isActive and bool(query.status["isTriggerActive"])


def _last_ended(query: StreamingQuery) -> tuple[int, str] | None:
    """The batch that ended last: its number, and when it began, since one without records ends again and again."""
    progress = query.lastProgress
    return None if progress is None else (progress.batchId, progress.timestamp)
