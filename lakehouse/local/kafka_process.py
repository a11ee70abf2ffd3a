"""The broker's process: started under a supervisor, recognised by its command line, ended by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lakehouse.local import kafka_supervisor

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class SupervisedProcess:
    """A running child process that ends with this process, until it is released."""

    pid: int
    supervisor: subprocess.Popen[bytes]

    @classmethod
    def launch(cls, command: Sequence[str], *, output: Path, releasable: bool) -> SupervisedProcess:
        """Start `command`, its output appended to the file `output`, in a session of its own (Ctrl-C does not reach it).

        If this process dies in whatever way, the child is ended. With `releasable` it may be let go later.
        """
        mode = "releasable" if releasable else "bound"
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", kafka_supervisor.__file__, mode, str(output), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert supervisor.stdout is not None  # noqa: S101 - told to the type checker: it is a pipe
        with supervisor.stdout as stdout:
            said = stdout.readline()
        if not said.strip():
            _close(supervisor)
            msg = f"cannot execute {command[0]}"
            raise FileNotFoundError(msg)
        return cls(int(said), supervisor)

    def has_ended(self) -> bool:
        """Tell whether the child is gone."""
        return self.supervisor.poll() is not None

    def release(self) -> None:
        """Let the child live on without this process."""
        assert self.supervisor.stdin is not None  # noqa: S101
        self.supervisor.stdin.write(kafka_supervisor.RELEASE)
        self.supervisor.stdin.flush()
        _close(self.supervisor)

    def end(self) -> None:
        """End the child: SIGTERM, then SIGKILL when it does not go; return when it is gone."""
        _close(self.supervisor)

    def kill(self) -> None:
        """End the child by SIGKILL, as a crash would; return when it is gone."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
        _close(self.supervisor)


def _close(supervisor: subprocess.Popen[bytes]) -> None:
    assert supervisor.stdin is not None  # noqa: S101
    supervisor.stdin.close()
    supervisor.wait(kafka_supervisor.GRACE_SECONDS + 20)


def command_line_of(pid: int) -> str:
    """Return the command line of the process `pid`; empty when there is none, or when it only waits to be reaped."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()


def end_by_pid(pid: int, mark: str, *, first: signal.Signals = signal.SIGTERM, grace_seconds: float = 20.0) -> None:
    """End the process `pid` whose command line holds `mark`, and nothing else; return when it is gone."""
    for number in (first, signal.SIGKILL):
        if mark not in command_line_of(pid):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + grace_seconds
        while mark in command_line_of(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
