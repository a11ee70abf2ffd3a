"""Who uses a checkpoint now."""

from __future__ import annotations

from pipelines.common.errors import CheckpointError
from pipelines.common.settings import Settings


def holder_of(settings: Settings, path: str) -> str | None:
    """Name the process that writes the checkpoint at `path`; None where none is known.

    The jobs keep no leases yet: this is where they will be looked up, for all commands that write.
    """
    del settings, path
    return None


def refuse_used(settings: Settings, path: str) -> None:
    """Raise CheckpointError where a job uses the checkpoint at `path`."""
    holder = holder_of(settings, path)
    if holder is not None:
        msg = f"The checkpoint {path} is in use by {holder}; stop that job first."
        raise CheckpointError(msg)
