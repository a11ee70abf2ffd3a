"""Keep a child process alive only as long as the parent: a program of its own, started by `kafka_process`.

The parent holds the write end of a pipe that is this program's standard input. However the parent dies (SIGKILL
included), the kernel closes the pipe, the read here ends, and the child is terminated, then killed. A word on the pipe
(`release`) lets the child go instead: it then lives on by itself. No thread of the parent matters, unlike with
PR_SET_PDEATHSIG in the parent, and the pid cannot be another process's, because the child is ours to reap.

On Linux the child also gets PR_SET_PDEATHSIG (this program forks from its only thread), for the case that somebody kills
this program itself. Only the standard library, so that it starts in some 30 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType

GRACE_SECONDS = 10.0
RELEASE = b"release\n"
_PR_SET_PDEATHSIG = 1


def _dies_with(supervisor: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)

    return ask_kernel


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    """Leave the decision to the pipe."""


def main(mode: str, output: str, command: list[str]) -> None:
    """Run `command` with its output appended to `output`; say its pid on standard output; obey standard input.

    `mode` is `bound`, or `releasable`, which must not carry the kernel's death signal: it could not be taken back.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)
    bound = mode == "bound" and sys.platform == "linux"
    with open(output, "ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # One thread here, so nothing can hold a lock at the fork.
            preexec_fn=_dies_with(os.getpid()) if bound else None,  # noqa: PLW1509
        )
    os.write(1, f"{child.pid}\n".encode())
    os.close(1)
    threading.Thread(target=lambda: os._exit(1 if child.wait() else 0), daemon=True).start()
    if os.read(0, len(RELEASE)) != RELEASE:
        _end(child)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
