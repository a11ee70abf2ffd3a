"""What a command costs: wall clock, CPU of its whole process tree (a JVM included), and memory.

Runs as a small process of its own between the bench and the command. It is made the reaper of orphans (prctl), so that
a JVM whose Python parent has gone first is waited for as well, and the CPU seconds are the kernel's, not a sample's.

    python -m benchmarks.measure --result FILE -- COMMAND...
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.lake.errors import LakehouseError
from pipelines.lake.resources import PROJECT

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SAMPLE_SECONDS = 0.25
_MIB = 1024 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UNITS = {"": 1 / _MIB, "k": 1 / 1024, "m": 1.0, "g": 1024.0}


@dataclass(frozen=True)
class Usage:
    """What a command took; `peak_rss_mib` is of all its processes together, `heap_mib` the largest -Xmx among them."""

    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    heap_mib: float


class Measured:
    """A command that runs under measurement; its output goes to `<name>.log`."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.log = folder / f"{name}.log"
        self._name, self._result = name, folder / f"{name}.usage.json"
        self._result.unlink(missing_ok=True)
        wrapper = [sys.executable, "-m", "benchmarks.measure", "--result", str(self._result), "--", *command]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(wrapper, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def has_ended(self) -> bool:
        """Tell whether the command has ended."""
        return self._process.poll() is not None

    def wait(self) -> Usage:
        """Wait for the end; raises LakehouseError where the command failed, with its last line."""
        code = self._process.wait()
        if code != 0 or not self._result.exists():
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1][:300] if lines else "no output"
            msg = f"The measured command {self._name} ended with code {code} ({last}); see {self.log}."
            raise LakehouseError(msg)
        return Usage(**json.loads(self._result.read_text(encoding="utf-8")))

    def stop(self) -> Usage:
        """Ask the command to end, as an operator would (SIGTERM), and wait."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()


def measure(command: Sequence[str]) -> Usage:
    """Run `command` in this process's place of parent, and wait for it and all that it leaves behind."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    started = time.perf_counter()
    child = subprocess.Popen(list(command))
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command itself
    sampler = _Sampler()
    sampler.start()
    exit_code, cpu_seconds = 0, 0.0
    for pid, status, usage in _ended():
        cpu_seconds += usage.ru_utime + usage.ru_stime
        if pid == child.pid:
            exit_code = os.waitstatus_to_exitcode(status)
            child.returncode = exit_code
    seconds = time.perf_counter() - started
    sampler.done.set()
    sampler.join()
    return Usage(exit_code, seconds, cpu_seconds, sampler.peak_bytes / _MIB, sampler.heap_mib)


def _ended() -> Iterator[tuple[int, int, resource.struct_rusage]]:
    """Yield each child, adopted ones too, when it has ended, with what it and its own waited-for children used."""
    while True:
        try:
            yield os.wait4(-1, 0)
        except ChildProcessError:
            return


class _Sampler(threading.Thread):
    """Looks at the memory of all descendants a few times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.peak_bytes = 0
        self.heap_mib = 0.0
        self._seen: set[int] = set()

    def run(self) -> None:
        while not self.done.wait(_SAMPLE_SECONDS):
            total = 0
            for pid in _descendants(os.getpid()):
                total += _resident_bytes(pid)
                if pid not in self._seen:
                    self.heap_mib = max(self.heap_mib, _max_heap_mib(pid))
            self.peak_bytes = max(self.peak_bytes, total)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            text = _read(entry / "stat")
            if text:
                children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, level = [], [root]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def _resident_bytes(pid: int) -> int:
    text = _read(Path(f"/proc/{pid}/statm"))
    return int(text.split()[1]) * _PAGE if text else 0


def _max_heap_mib(pid: int) -> float:
    """The process's -Xmx in MiB; 0 where it has none."""
    options = re.findall(r"-Xmx(\d+)([kmg]?)", _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " "), re.IGNORECASE)
    return int(options[-1][0]) * _UNITS[options[-1][1].lower()] if options else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process has ended
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that follows `--`; its exit code is this one's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    usage = measure(args.command[1:] if args.command[:1] == ["--"] else args.command)
    args.result.write_text(json.dumps(asdict(usage)), encoding="utf-8")
    return usage.exit_code


if __name__ == "__main__":
    sys.exit(main())
