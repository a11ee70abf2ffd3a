"""Copies of checkpoints: exact ones as a backup, or under a new generation to go on from."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lakehouse.operations.checkpoints.holders import refuse_used
from lakehouse.operations.checkpoints.reading import METADATA, CheckpointState, read_checkpoint
from pipelines.lake.checkpoint.failures import NAME as FAILURES
from pipelines.lake.checkpoint.identity import MARKER, Marker, new_generation_id
from pipelines.lake.checkpoint.spark_files import write_query_id
from pipelines.lake.errors import CheckpointError, LakehouseError
from pipelines.lake.settings import Settings
from pipelines.lake.storage.protocol import Storage, is_empty, read_all


@dataclass(frozen=True)
class CopyPlan:
    """Files that will be copied as they are, and those that get another content."""

    source: Storage
    target: Storage
    state: CheckpointState
    names: tuple[str, ...]
    replaced: Mapping[str, bytes] = field(default_factory=dict)
    generation: str | None = None
    """The new generation, None for an exact copy."""

    @property
    def bytes(self) -> int:
        """Size of all files that will be written."""
        return sum(self.state.entries[name].size for name in self.names) + sum(map(len, self.replaced.values()))

    @property
    def files(self) -> int:
        """How many files will be written."""
        return len(self.names) + len(self.replaced)


def plan_copy(settings: Settings, source: Storage, target: Storage, *, new_generation: bool = False) -> CopyPlan:
    """Plan a copy of all files; nothing is written.

    Raises CheckpointError where the source is no checkpoint, or is in use and would be copied to go on from, or the target is
    not empty.
    """
    state = read_checkpoint(source)
    require_empty(target)
    if not new_generation:
        return CopyPlan(source, target, state, tuple(state.entries))
    refuse_used(source.path)
    return plan_generation(source, target, state, state.entries)


def plan_generation(source: Storage, target: Storage, state: CheckpointState, names: Iterable[str]) -> CopyPlan:
    """Plan a copy of some files under a new generation and a new query id.

    Raises CheckpointError where the checkpoint has no marker or no query id that could be replaced.
    """
    marker = require_marker(state)
    if state.query_id is None:
        msg = (
            f"The checkpoint {source.path} has no readable file `{METADATA}`; make a new one with `lakehouse checkpoint rebuild`."
        )
        raise CheckpointError(msg)
    fresh = replace(marker, generation=new_generation_id())
    replaced = {METADATA: write_query_id(str(uuid.uuid4())), MARKER: fresh.encode()}
    # Failures are those of the source's stream. Hadoop's checksums beside the files that change would no longer fit them.
    left_out = {*replaced, FAILURES, *(f".{name}.crc" for name in (*replaced, FAILURES))}
    return CopyPlan(source, target, state, tuple(name for name in names if name not in left_out), replaced, fresh.generation)


def write_copy(plan: CopyPlan) -> None:
    """Write the copy; where that fails, what was written is deleted again.

    The marker comes last: a job refuses a folder that has files but no marker, so a copy that was cut short is never used.
    Raises LakehouseError where the source changed meanwhile.
    """
    # A running query writes offsets before commits: read the other way round, no commit is without its offsets.
    order = sorted(plan.names, key=lambda name: (not name.startswith("commits/"), name))
    contents = read_all(plan.source, order)
    if gone := [name for name in order if name not in contents]:
        msg = (
            f"The checkpoint {plan.source.path} changed while it was read ({gone[0]} is gone), so nothing was written; stop its "
            "job, or try again (playbooks/checkpoint-lost.md)."
        )
        raise LakehouseError(msg)
    contents |= plan.replaced
    write_new(plan.target, contents)


def write_new(target: Storage, contents: Mapping[str, bytes]) -> None:
    """Write files into an empty folder, the marker last; all or nothing, as far as this process lives.

    Raises CheckpointError where somebody else writes there at the same time.
    """
    written: list[str] = []
    try:
        for name in sorted(contents, key=lambda name: (name == MARKER, name)):
            target.create(name, contents[name])
            written.append(name)
    except FileExistsError:
        _delete(target, written)
        msg = f"Somebody else writes to {target.path} at the same time; choose another path."
        raise CheckpointError(msg) from None
    except BaseException:
        _delete(target, written)
        raise


def _delete(target: Storage, names: Iterable[str]) -> None:
    for name in names:
        target.delete(name)


def require_empty(target: Storage) -> None:
    """Raise CheckpointError where something lies in `target`."""
    if not is_empty(target):
        msg = f"The folder {target.path} is not empty, and nothing is ever overwritten; give a path where nothing lies."
        raise CheckpointError(msg)


def require_marker(state: CheckpointState) -> Marker:
    """The marker; raises CheckpointError where there is none that can be read."""
    if state.marker is None:
        msg = (
            f"The checkpoint {state.path} has no readable file {MARKER}, so nothing says whose it is; copy it without "
            "--new-generation, or make a new one with `lakehouse checkpoint rebuild`."
        )
        raise CheckpointError(msg)
    return state.marker
