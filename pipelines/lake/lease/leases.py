"""Who writes a table: one at a time, by a lock that dies with its holder.

A stream and a replay beside it take turns: each holds the lease for one batch. Who finds that somebody else held it in
between forgets what it remembered of the table. Source: flock(2), which the kernel releases when the holder is gone,
however it ended; so it guards a lake on this machine's file system.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pipelines.lake.errors import LeaseHeldError, UnreadableError, UsageError
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import files_in, unreadable
from pipelines.lake.storage.places import is_local, local_place

FOLDER = "_leases"
CHECKPOINT_LOCK = "lakehouse.lock"
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 1.0
"""How long a checkpoint's lock is tried for: who only looks whether it is held (`held_by`) holds it for a moment."""
_locks: dict[str, tuple[IO[str], int]] = {}
"""Open files of the checkpoints that this process uses, and by how many runs: closing one gives the checkpoint away."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, or held it last; `run` tells two runs of one job apart."""

    job: str
    run: str
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        return f"{self.job} (run {self.run}, pid {self.pid} on {self.host}, since {self.since})"


@dataclass
class Lease:
    """The right to write a layer's tables; `path` is None where the lake is on no local file system."""

    path: Path | None
    holder: Holder
    wait_seconds: float
    _held_before: bool = False
    _is_held: bool = False

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Hold the lease for the block; yields whether somebody else may have written since this run held it last.

        A block inside a block holds it as well. Raises LeaseHeldError, which names the holder, after `wait_seconds`.
        """
        if self._is_held or self.path is None:
            yield not self._held_before
            self._held_before = True
            return
        with _open_to_lock(self.path) as file:
            self._wait(file)
            last = _read(file)
            others = not self._held_before or last is None or (last.run, last.pid) != (self.holder.run, self.holder.pid)
            if others:
                _write(file, self.holder)
            self._is_held = True
            try:
                yield others
            finally:
                self._is_held = False
            self._held_before = True

    def _wait(self, file: IO[str]) -> None:
        deadline = time.monotonic() + self.wait_seconds
        while not _lock(file):
            if time.monotonic() >= deadline:
                msg = (
                    f"The lease {self.path} was not free within {self.wait_seconds:g} s, {_read(file)} holds it; "
                    "let that one end, or stop it, and try again."
                )
                raise LeaseHeldError(msg)
            time.sleep(_POLL_SECONDS)


def lease_of(settings: Settings, layer: str, *, job: str, run: str) -> Lease:
    """The lease of a layer (bronze, silver with its dead letters, gold) for one run of a job."""
    return Lease(_path(settings, layer), Holder(job, run), settings.leases.wait_seconds)


def leases_held(settings: Settings) -> dict[str, Holder]:
    """Who holds which layer's lease at this moment. Raises UnreadableError where one cannot be looked at."""
    held, unseen = look_at_leases(settings)
    if unseen:
        raise UnreadableError(unseen[0])
    return held


def look_at_leases(settings: Settings) -> tuple[dict[str, Holder], list[str]]:
    """Who holds which layer's lease at this moment, and a sentence for each that could not be looked at: it may be held."""
    folder = _path(settings, "any")
    held, unseen = dict[str, Holder](), []
    try:
        paths = files_in(folder.parent, "*.json") if folder is not None else []
    except UnreadableError as error:
        return {}, [str(error)]
    for path in paths:
        try:
            holder = held_by(path)
        except UnreadableError as error:
            unseen.append(str(error))
            continue
        if holder is not None:
            held[path.stem] = holder
    return held, unseen


def held_by(path: Path) -> Holder | None:
    """Who holds the lock at `path` now; None where nobody does. Raises UnreadableError where it cannot be looked at."""
    try:
        file = path.open("r", encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    with file:
        # A shared lock, for a moment: two that look do not take each other for a holder.
        if _lock(file, fcntl.LOCK_SH):
            return None
        return _read(file)


def take_checkpoint(path: str, *, job: str, run: str) -> None:
    """Keep the checkpoint at `path` for this process until `release_checkpoint`, or its end; a second driver is refused.

    Raises UsageError where another process has it. A checkpoint on an object store is not guarded.
    """
    if not is_local(path):
        return
    if path in _locks:
        file, runs = _locks[path]
        _locks[path] = (file, runs + 1)
        return
    file = _open_to_lock(Path(path) / CHECKPOINT_LOCK)
    deadline = time.monotonic() + _LOOK_SECONDS
    while not (locked := _lock(file)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if not locked:
        holder = _read(file)
        file.close()
        msg = (
            f"The checkpoint {path} is in use by {holder}; stop that process, or give a new path for a run of its own "
            "(playbooks/spark-crash.md)."
        )
        raise UsageError(msg)
    try:
        _write(file, Holder(job, run))
    except OSError:
        # A full disk: an open file would keep the lock, and this process would refuse itself at the next attempt.
        with suppress(OSError):
            file.close()
        raise
    _locks[path] = (file, 1)


def release_checkpoint(path: str) -> None:
    """Give the checkpoint back, once for each time that it was taken."""
    if path in _locks:
        file, runs = _locks.pop(path)
        if runs > 1:
            _locks[path] = (file, runs - 1)
        else:
            file.close()


def _open_to_lock(path: Path) -> IO[str]:
    """Open a lock's file, and make it where there is none; raises UnreadableError where this user may not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except PermissionError as error:
        raise unreadable(path, error, "writable") from None


def _path(settings: Settings, layer: str) -> Path | None:
    root = local_place(settings.lake.root)
    return None if root is None else root / FOLDER / f"{layer}.json"


def _lock(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: IO[str]) -> Holder | None:
    file.seek(0)
    try:
        return Holder(**json.loads(file.read()))
    except (ValueError, TypeError):
        return None


def _write(file: IO[str], holder: Holder) -> None:
    file.truncate(0)
    file.write(json.dumps(asdict(holder)))
    file.flush()
