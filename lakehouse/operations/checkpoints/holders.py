"""Refuses a checkpoint that a job uses now."""

from __future__ import annotations

from pipelines.lake.errors import CheckpointError
from pipelines.lake.lease.checkpoints import checkpoint_holder


def refuse_used(path: str) -> None:
    """Raise CheckpointError where a job uses the checkpoint at `path`."""
    holder = checkpoint_holder(path)
    if holder is not None:
        msg = f"The checkpoint {path} is in use by {holder}; stop that job first."
        raise CheckpointError(msg)
