"""Locks a checkpoint for the run that has opened it: a second driver on it is refused, also one in the same process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pipelines.lake.errors import UsageError
from pipelines.lake.lease.backends import lease_backend
from pipelines.lake.lease.flock import token_file
from pipelines.lake.lease.protocol import AlreadyHeldError, HeldLease, Holder, acquire_within

CHECKPOINT_LOCK = "lakehouse.lock"
CHECKPOINT_LOCK_FILES = (CHECKPOINT_LOCK, token_file(Path(CHECKPOINT_LOCK)).name)
"""What a holder writes in a local checkpoint."""
_LOOK_SECONDS = 1.0
"""How long a lock is tried for: a process that only looks at it has it for a moment, and a stream that has ended gives it back a
moment later."""


@dataclass(frozen=True)
class CheckpointLock:
    """The right to run on a checkpoint. Who has opened the checkpoint owns it, until `release` or the end of the process.

    `held` is None where nothing guards the checkpoint: on an object store.
    """

    held: HeldLease | None = None

    def release(self) -> None:
        """Give the checkpoint back; does nothing where it was given back before."""
        if self.held is not None:
            self.held.release()

    @contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Give the checkpoint back where the block fails; otherwise whoever the block gave the lock to releases it."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> None:
        """Keep the checkpoint for the block."""

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """Give the checkpoint back."""
        self.release()


def lock_checkpoint(path: str, *, job: str, run: str) -> CheckpointLock:
    """Lock the checkpoint at `path` for this run. Raises UsageError where another run has it.

    A checkpoint on an object store is not guarded.
    """
    backend = lease_backend(path, CHECKPOINT_LOCK)
    if backend is None:
        return CheckpointLock()
    try:
        return CheckpointLock(acquire_within(backend, Holder(job, run), _LOOK_SECONDS))
    except AlreadyHeldError as error:
        msg = (
            f"The checkpoint {path} is in use by {error.holder}; stop that process, or give a new path for a run of its own "
            "(playbooks/spark-crash.md)."
        )
        raise UsageError(msg) from None


def checkpoint_holder(path: str) -> Holder | None:
    """Who runs on the checkpoint at `path`; None where nobody does, or where it lies on an object store.

    Raises UnreadableError where that cannot be seen.
    """
    backend = lease_backend(path, CHECKPOINT_LOCK)
    return None if backend is None else backend.look()
