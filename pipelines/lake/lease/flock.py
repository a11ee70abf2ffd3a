"""Keeps a lease on the local disk: a lock of the kernel on a file, which names the holder, and the token in a file beside it.

Source: flock(2). The kernel releases the lock when its holder is gone, however it ended. It guards one machine's file system.

The token lies beside (`silver.json` has `silver.token`), not in the locked file, because of older versions of this project on the
same lake. They read that file as one JSON object of known keys: with a key more, or a second line, they would see no holder. And
they write it anew without what they do not know: the token would begin again. A file beside they leave alone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.lake.errors import LakehouseError
from pipelines.lake.lease.protocol import AlreadyHeldError, HeldLease, Holder
from pipelines.lake.storage.local_files import unreadable

_AT_MOST = 65_536
"""Bytes that are read of a file: `/dev/full` and the like have no end."""
_DIGITS = 20
"""A token has always as many digits, so that one is written over the other in one step, which no kill cuts."""


def token_file(path: Path) -> Path:
    """Where the token of the lease at `path` lies."""
    return path.with_suffix(".token")


@dataclass(frozen=True)
class FlockBackend:
    """The lease of the file at `path`, which is made where it is absent."""

    path: Path

    @property
    def place(self) -> str:
        """The file's path."""
        return str(self.path)

    def acquire(self, holder: Holder, last_token: int | None = None) -> HeldLease:
        """Lock the file and note the holder; raises AlreadyHeldError, UnreadableError where this user may not write it."""
        descriptor = _open_to_write(self.path)
        try:
            if not _lock(descriptor, fcntl.LOCK_EX):
                raise AlreadyHeldError(_read_holder(descriptor))
            token = self._note(descriptor, holder, last_token)
        except BaseException:
            # A full disk, say: an open file would keep the lock, and this process would refuse itself at the next attempt.
            with suppress(OSError):
                os.close(descriptor)
            raise
        return _HeldFlock(holder, token, descriptor)

    def look(self) -> Holder | None:
        """Who has the file locked."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(self.path, error) from None
        try:
            # A shared lock, for a moment: two that look do not take each other for a holder.
            return None if _lock(descriptor, fcntl.LOCK_SH) else _read_holder(descriptor)
        finally:
            os.close(descriptor)

    def _note(self, descriptor: int, holder: Holder, last_token: int | None) -> int:
        """Write a new holder into the locked file and count it; return its token.

        The token first: where the process dies between the two, the token was never used, and the next holder's is greater.
        """
        counter = _open_to_write(token_file(self.path))
        try:
            token = _read_token(counter, token_file(self.path))
            # An older version that held the lease meanwhile has left its name alone.
            if token == last_token and _read_holder(descriptor) == holder:
                return token
            _write(counter, f"{token + 1:0{_DIGITS}}\n".encode())
            os.fsync(counter)
        finally:
            os.close(counter)
        # Over what is there, in one step: who looks at this moment reads one holder or the other.
        _write(descriptor, json.dumps(asdict(holder)).encode().ljust(os.fstat(descriptor).st_size))
        return token + 1


class _HeldFlock:
    """A locked file; closing it gives the lock back. One that nobody has any more is closed, too."""

    def __init__(self, holder: Holder, token: int, descriptor: int) -> None:
        self.holder, self.token = holder, token
        self._close = weakref.finalize(self, os.close, descriptor)
        # A process that ends keeps its locks to the last moment: the kernel takes them back.
        self._close.atexit = False

    def release(self) -> None:
        self._close()


def _open_to_write(path: Path) -> int:
    """Open a file, and make it where there is none; raises UnreadableError where this user may not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as error:
        raise unreadable(path, error, "writable") from None


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(descriptor: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(descriptor, _AT_MOST, 0)))
    except (ValueError, TypeError):
        return None


def _read_token(descriptor: int, path: Path) -> int:
    """Read the token of the last holder: 0 of a lease that only older versions held, or whose first holder died at once."""
    content = os.pread(descriptor, _AT_MOST, 0).strip(b"\0\n ")
    if content and not content.isdigit():
        msg = (
            f"The file {path} is damaged, expected a number: how many holders the lease beside it had; stop what writes to this "
            "lake, delete the file, and start again (playbooks/spark-crash.md)."
        )
        raise LakehouseError(msg)
    return int(content or b"0")


def _write(descriptor: int, content: bytes) -> None:
    if os.pwrite(descriptor, content, 0) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
