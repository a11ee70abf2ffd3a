"""A long piece of work that Ctrl-C ends at any moment without leaving a process behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, TypeVar

from pipelines.lake.process import on_stop_signals

_Result = TypeVar("_Result")
_DRAIN_SECONDS = 10.0
_END_SECONDS = 5.0


class Interrupted(BaseException):
    """Raised where the user asked to stop; `idle` tells whether the work's thread has ended."""

    def __init__(self, *, idle: bool) -> None:
        super().__init__()
        self.idle = idle


class Work(Generic[_Result]):
    """Runs a function in a thread, while the main thread listens: Python's calls into Spark cannot be interrupted.

    `stop` asks the function to end early. While `drains` is set it gets ten seconds for that, so that acknowledgements
    and batches under way are finished; else, or at a second Ctrl-C, it is left alone at once.
    """

    def __init__(self, function: Callable[[Work[_Result]], _Result]) -> None:
        self.stop = threading.Event()
        self.drains = False
        self._function = function
        self._asked = 0
        self._result: list[_Result] = []
        self._error: BaseException | None = None

    def run(self, on_drain: Callable[[], None]) -> _Result:
        """Return what the function returns, or raise what it raises; Interrupted when a signal came.

        Stop signals are ignored from here on: what follows is the clean end, or the report.
        """
        stop_signals = on_stop_signals(self._ask)
        thread = threading.Thread(target=self._work, name="demo", daemon=True)
        thread.start()
        deadline = None
        while thread.is_alive():
            thread.join(0.05)
            if self._asked and deadline is None:
                deadline = time.monotonic() + (_DRAIN_SECONDS if self.drains else 0)
                self.stop.set()
                if self.drains:
                    on_drain()
            if deadline is not None and (time.monotonic() >= deadline or self._asked > 1):
                break
        for number in stop_signals:
            signal.signal(number, signal.SIG_IGN)
        if self._asked:
            raise Interrupted(idle=not thread.is_alive())
        if self._error is not None:
            raise self._error
        return self._result[0]

    @contextmanager
    def draining(self) -> Iterator[threading.Event]:
        """Mark a block that watches `stop` and ends soon after it is set."""
        self.drains = True
        try:
            yield self.stop
        finally:
            self.drains = False

    def _ask(self, _number: int, _frame: object) -> None:
        self._asked += 1

    def _work(self) -> None:
        try:
            self._result.append(self._function(self))
        except BaseException as error:
            self._error = error


def children() -> set[int]:
    """Return this process's children (where there is no /proc: those that multiprocessing knows)."""
    found = {child.pid for child in multiprocessing.active_children() if child.pid}
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found |= {int(pid) for pid in listing.read_text(encoding="ascii").split()}
    return found


def end_children(pids: set[int]) -> None:
    """End these children, SIGTERM first, and return when they are gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _END_SECONDS
        while pids and time.monotonic() < deadline:
            pids = {pid for pid in pids if not _is_reaped(pid)}
            time.sleep(0.02)


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


@contextmanager
def standard_error_to(path: Path) -> Iterator[None]:
    """Send standard error, that of child processes included, to the file `path`: a JVM cannot be told to be quiet."""
    sys.stderr.flush()
    before = os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
