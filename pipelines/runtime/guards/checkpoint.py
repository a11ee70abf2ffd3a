"""Guards of the checkpoint: it stands where the tables and the ledger say that its batches ended."""

from __future__ import annotations

from pipelines.lake.checkpoint.progress import last_planned
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.errors import CheckpointError, DataLossError
from pipelines.lake.places import absolute, is_local
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.local_files import look
from pipelines.runtime.guards.start import Start
from pipelines.runtime.restores import last_written, refuse_restored_after


def refuse_lost_commits(start: Start) -> None:
    """Raise DataLossError where the log of a written table ends before what the checkpoint wrote: commit files were deleted."""
    if start.tables is None:
        return
    checkpoint = start.open_checkpoint
    for name in start.tables.outputs:
        path = name.path(start.settings)
        version, last = existing_table(absolute(path)).version(), start.reached.get(str(name), 0)
        if version < last or _is_empty(f"{path}/_delta_log/{last:020d}.json"):
            found = f"ends with version {version}" if version < last else f"has nothing in the commit of version {last}"
            msg = (
                f"The log of {name} at {path} {found}, but the checkpoint {checkpoint.path} had come to version {last}: commit "
                "files were lost, and going on would lose their rows; put the files back from a backup, or see "
                "playbooks/full-rebuild.md."
            )
            raise DataLossError(msg)


def _is_empty(path: str) -> bool:
    """Whether a file is there without a byte in it, which readers take for a commit of nothing; never on an object store."""
    found = look(path) if is_local(path) else None
    return found is not None and not found.st_size


def refuse_restored(start: Start) -> None:
    """Raise CheckpointError where a table was restored after the checkpoint had written to it.

    Only tables in which its batches leave a transaction id count: Delta would skip what the stream writes again. Only commits
    after the checkpoint's last recorded one are looked at, so a start costs next to nothing.
    """
    checkpoint = start.open_checkpoint
    if start.tables is None or (checkpoint.is_new and not checkpoint.versions):
        return
    for name, path in start.tables.written_paths(start.settings).items():
        refuse_restored_after(start.reached.get(name, 0), checkpoint, name, path)


def refuse_old_copy(start: Start) -> None:
    """Raise CheckpointError where the stream's checkpoint ends before a batch that was written: an old copy, or files were lost.

    A batch is planned before it is written, so after a crash both sides name the same one; where the table is ahead, Spark would
    plan its batches' numbers anew for other records, and Delta would skip these silently. Gold leaves no id: its MERGE is
    idempotent.
    """
    if start.is_replay or start.tables is None or not start.tables.transactions:
        return
    checkpoint = start.open_checkpoint
    planned = last_planned(open_storage(checkpoint.path))
    written = last_written(start.spark, checkpoint, start.ledger, start.tables.transaction_paths(start.settings))
    if written > (-1 if planned is None else planned):
        ends = "before its first batch" if planned is None else f"at batch {planned}"
        msg = (
            f"The checkpoint {checkpoint.path} ends {ends}, but batch {written} of its generation {checkpoint.generation} was "
            "written: it is an old copy, or files of it were lost, and going on would skip records; make a new one with "
            f"`lakehouse checkpoint rebuild {checkpoint.job}` (playbooks/checkpoint-lost.md)."
        )
        raise CheckpointError(msg)
