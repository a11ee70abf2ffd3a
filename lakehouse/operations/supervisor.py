"""One stream kept running: started again alone after a failure that may pass, held while its breaker is open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import tenacity
from pyspark.errors import PySparkException
from pyspark.sql.streaming import StreamingQuery

from pipelines.lake.causes.cause import Kind
from pipelines.lake.checkpoint.failures import BatchFailures, Failure
from pipelines.lake.errors import LakehouseError
from pipelines.lake.logging import Log
from pipelines.lake.settings import RetrySettings, Settings
from pipelines.runtime.guards.cause import cause_in_tables
from pipelines.runtime.stream_life import await_query
from pipelines.silver.breaker.breaker import Limits
from pipelines.silver.breaker.breaker_store import BreakerStore

_LOG = Log("up")
_POLL_SECONDS = 2.0
"""How soon an operator's reset of the breaker is seen."""


@dataclass
class SupervisedStream:
    """A stream and what is done when it fails; `halt` asks it to end after the running batch.

    Failures of one batch are counted; another batch, or the operator's start of the process, begins the count anew. A restart
    goes on at the same checkpoint, so nothing is lost or doubled by it.
    """

    name: str
    start: Callable[[], StreamingQuery]
    settings: Settings
    failures: BatchFailures
    halt: threading.Event
    query: StreamingQuery | None = field(default=None)
    error: Exception | None = field(default=None)

    def begin(self) -> None:
        """Start the stream for the first time; what keeps it from starting is raised, by name."""
        self.failures.forget()
        try:
            self.query = self.start()
        except (LakehouseError, PySparkException):
            raise
        except Exception as error:  # a disk that cannot be written, whether Python or Java has met it
            raise self.failures.note(error).error() from error

    def watch(self) -> None:
        """Keep the stream running until `halt`, or until it ends; then set `halt`. `error` says what it died of."""
        try:
            while not self.halt.is_set():
                failure = self._await()
                if failure is None:
                    return
                self._pause(failure)
                self.query = None
        except Exception as error:  # raised in the thread of `run_live`, once the other streams are drained
            self.error = error
        finally:
            self.halt.set()

    def run_to_end(self) -> None:
        """Keep the stream running until it has come to the end of what is there.

        Raises what it cannot go on from; an open breaker among it, since nobody waits for a batch run.
        """
        while not self.halt.is_set():
            failure = self._await()
            if failure is None:
                return
            if failure.cause.kind is Kind.HELD:
                raise failure.error()
            self._pause(failure)
            self.query = None

    def _await(self) -> Failure | None:
        """Run the stream until it ends; None where it was not by a failure."""
        try:
            if self.query is None:
                self.query = self.start()
                _LOG.info("stream runs again", stream=self.name)
            await_query(self.query, self.halt)
        except Exception as error:
            return self._judge(error)
        return None

    def _judge(self, error: Exception) -> Failure:
        failure = self.failures.note(error)
        if failure.is_final(self.settings.retries.attempts):
            _LOG.error("stream failed", stream=self.name, batch=failure.batch_id, attempt=failure.count, cause=failure.cause.name)
            place = self.failures.checkpoint
            said = None if failure.own is not None else cause_in_tables(self.settings, self.name, place)
            raise (said or failure.error()) from error
        return failure

    def _pause(self, failure: Failure) -> None:
        if failure.cause.kind is Kind.HELD:
            self._hold()
            return
        wait = backoff_seconds(self.settings.retries, failure.count)
        _LOG.warning(
            "stream failed, starting it again",
            stream=self.name,
            batch=failure.batch_id,
            attempt=failure.count,
            wait_seconds=round(wait, 1),
            cause=failure.cause.name,
            kind=str(failure.cause.kind),
        )
        self.halt.wait(wait)

    def _hold(self) -> None:
        """Wait for the breaker's cool-down or an operator's reset; the other streams go on."""
        store, limits = BreakerStore(self.settings), Limits.of(self.settings.breaker)
        last = store.peek()
        if last is None or last.to_state != "open":
            self.halt.wait(_POLL_SECONDS)
            return
        until = last.breaker().retry_at(limits)
        _LOG.warning("stream is held by the circuit breaker", stream=self.name, until=until.isoformat(timespec="seconds"))
        while not self.halt.is_set():
            left = (until - datetime.now(UTC)).total_seconds()
            newest = store.peek()
            if left <= 0 or (newest is not None and newest.to_state != "open"):
                return
            self.halt.wait(min(left, _POLL_SECONDS))


def first_error(streams: list[SupervisedStream]) -> Exception | None:
    """The error of the first stream, in their order, that has one; one of the project's own before any other."""
    errors = [stream.error for stream in streams if stream.error is not None]
    return next((error for error in errors if isinstance(error, LakehouseError)), errors[0] if errors else None)


def backoff_seconds(settings: RetrySettings, failures: int) -> float:
    """Wait after so many failures in a row (from 1): exponential, with jitter so that streams do not come back together."""
    first = settings.first_wait_seconds
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failures
    return tenacity.wait_exponential_jitter(multiplier=first, max=settings.longest_wait_seconds, jitter=first)(state)
