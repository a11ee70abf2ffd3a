"""Ctrl-C that ends a statement and not the prompt: the statement runs in a thread, and its Spark jobs are cancelled."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Generic, TypeVar

from pyspark import InheritableThread
from pyspark.sql import SparkSession

from pipelines.lake.errors import StoppedError

_Result = TypeVar("_Result")
_AGAIN_SECONDS = 0.5
"""How often jobs are cancelled: a statement may begin one after another."""


class CancelledError(StoppedError):
    """Raised where Ctrl-C ended a statement (exit code 130)."""


class StillRunningError(StoppedError):
    """Raised at a second Ctrl-C, where a statement has not ended yet: only the end of the process ends it (exit code 130)."""


def cancellable(spark: SparkSession, function: Callable[[], _Result]) -> _Result:
    """Give what `function` returns, or raise what it raises; Ctrl-C cancels its Spark jobs and raises CancelledError.

    A second Ctrl-C does not wait for that: it raises StillRunningError. Python's call into the JVM cannot be interrupted
    without breaking its connection, so the function runs in a thread of its own.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        return function()
    work = _Work(spark, function)
    before = signal.signal(signal.SIGINT, work.ask)
    try:
        return work.run()
    finally:
        signal.signal(signal.SIGINT, before)


class _Work(Generic[_Result]):
    def __init__(self, spark: SparkSession, function: Callable[[], _Result]) -> None:
        self._spark = spark
        self._function = function
        self._group = f"statement-{uuid.uuid4()}"
        self._asked = 0
        self._results: list[_Result] = []
        self._error: BaseException | None = None

    def ask(self, _number: int, _frame: object) -> None:
        self._asked += 1

    def run(self) -> _Result:
        thread = InheritableThread(target=self._work, session=self._spark)
        thread.daemon = True
        thread.start()
        cancel_at = 0.0
        while thread.is_alive():
            thread.join(0.05)
            if self._asked > 1:
                msg = "The statement had not stopped yet; it ended with this process."
                raise StillRunningError(msg)
            if self._asked and time.monotonic() >= cancel_at:
                self._cancel()
                cancel_at = time.monotonic() + _AGAIN_SECONDS
        if self._asked and not self._results:
            msg = "The statement was cancelled."
            raise CancelledError(msg)
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _cancel(self) -> None:
        # Jobs that begin later as well: the statement may be between two.
        self._spark.sparkContext._jsc.sc().cancelJobGroupAndFutureJobs(self._group)

    def _work(self) -> None:
        try:
            self._spark.sparkContext.setJobGroup(self._group, "lakehouse sql", interruptOnCancel=True)
            self._results.append(self._function())
        except BaseException as error:  # raised in the thread that waits
            self._error = error
