"""Who uses a checkpoint now."""

from __future__ import annotations

from pipelines.lake.errors import CheckpointError
from pipelines.lake.lease.leases import CHECKPOINT_LOCK, Holder, held_by
from pipelines.lake.storage.places import local_place


def holder_of(path: str) -> Holder | None:
    """Name the process that runs on the checkpoint at `path`; None where none does, or where it lies on an object store."""
    place = local_place(path)
    return None if place is None else held_by(place / CHECKPOINT_LOCK)


def refuse_used(path: str) -> None:
    """Raise CheckpointError where a job uses the checkpoint at `path`."""
    holder = holder_of(path)
    if holder is not None:
        msg = f"The checkpoint {path} is in use by {holder}; stop that job first."
        raise CheckpointError(msg)
