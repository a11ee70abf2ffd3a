"""The end of a process: its exit code is the one that it chose, whatever libraries' threads do while they are torn down."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], object]


def on_stop_signals(handler: Handler) -> dict[int, Any]:
    """Call `handler` on SIGINT, SIGTERM, and SIGHUP (the terminal closes) unless that is ignored, as `nohup` asks for.

    Returns the handlers from before, by signal.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return {number: signal.signal(number, handler) for number in numbers}


@dataclass
class _End:
    code: int = 1

    def leave(self) -> None:
        """End the process here; what stands on its streams is written first."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # nobody reads any more, it is closed, or was so at the start
                stream.flush()
        os._exit(self.code)


def run_process(main: Callable[[], int | None]) -> None:
    """Run `main` and end the process with its exit code, or with that of the SystemExit that it raises.

    Arrow's thread pools may still live when C++ destroys their static objects: one process in a hundred that had done and
    said all was aborted so ("terminate called without an active exception", exit code 134), and a supervisor would have
    taken it for a crash. So Python's shutdown, other exit handlers included, runs as ever, and its last step ends the
    process.
    """
    end = _End()
    # Handlers run in the reverse of their order: everybody who registers after this is done before.
    atexit.register(end.leave)
    try:
        end.code = main() or 0
    except SystemExit as asked:
        # None is success, and a text is printed and means 1: as Python has it.
        end.code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        raise
    sys.exit(end.code)


def say_last(sentence: str) -> None:
    """Write how the process ends to standard error, and log nothing after it.

    Py4J's threads log a trace each when the JVM has died, some of them late: the sentence would stand above them.
    """
    logging.disable()
    with suppress(OSError, ValueError, AttributeError):  # the terminal is gone, or standard error was closed
        sys.stderr.write(f"{sentence}\n")
