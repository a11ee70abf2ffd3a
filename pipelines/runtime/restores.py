"""Tables that went back to an old version: a checkpoint that went beyond it must not go on.

RESTORE takes rows back, but neither a stream's position nor Delta's transaction ids: the stream would not read the lost
rows' records again, and a batch that it repeats would be skipped. The RESTORE commit in the table's own log says it,
whoever made it; so nothing has to be written down besides, and nothing can be lost between the two.

Commit files that are deleted from the end of the log, or emptied, take rows back as well, and leave no mark: the ledger says
which version the checkpoint had written.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import SparkSession

from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.checkpoint.progress import last_planned
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.restores import find_restores
from pipelines.lake.errors import CheckpointError, DataLossError
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.places import absolute, is_local
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.local_files import look
from pipelines.runtime import delta


def restored_since(path: str, version: int) -> int | None:
    """Version of the newest RESTORE among the commits after `version` of the table at `path`; None where there is none.

    Raises CheckpointError where the log no longer reaches back to `version`.
    """
    table = existing_table(absolute(path))
    newer = table.version() - version
    if newer <= 0:
        return None
    found = find_restores(absolute(path), table.version(), since=version, at_least=0)
    if (seen := table.version() + 1 - found.oldest) < newer:
        msg = (
            f"The log of {path} reaches back over {seen} of the {newer} commits since version {version}, so whether the "
            "table was restored since cannot be told; start a new generation of the checkpoint."
        )
        raise CheckpointError(msg)
    return next((restore.version for restore in found.restores), None)


def refuse_lost_commits(checkpoint: Checkpoint, ledger: Ledger, tables: Mapping[str, str]) -> None:
    """Refuse to write on top of a log of one of `tables` (name -> path) that ends before what the checkpoint wrote.

    Raises DataLossError with one sentence; nothing is written.
    """
    _refuse_lost(checkpoint, tables, _reached(checkpoint, ledger))


def refuse_restored(checkpoint: Checkpoint, ledger: Ledger, tables: Mapping[str, str]) -> None:
    """Refuse a checkpoint that had written to one of `tables` (name -> path) before that was restored.

    Only commits after the checkpoint's last recorded one are looked at, so a start costs next to nothing. Raises
    CheckpointError with one sentence, DataLossError where commits were deleted; nothing is written.
    """
    if checkpoint.is_new and not checkpoint.versions:
        return
    reached = _reached(checkpoint, ledger)
    _refuse_lost(checkpoint, tables, reached)
    for name, path in tables.items():
        refuse_restored_after(reached.get(name, 0), checkpoint, name, path)


def refuse_restored_after(version: int, checkpoint: Checkpoint, name: str, path: str) -> None:
    """Refuse a checkpoint that had brought the table `name` at `path` to `version`, if it was restored since.

    Raises CheckpointError with one sentence; nothing is written.
    """
    restored = restored_since(path, version)
    if restored is not None:
        msg = (
            f"The table {name} was restored to an older version (by its version {restored}) after the checkpoint "
            f"{checkpoint.path} (generation {checkpoint.generation}) had written to it, so going on would lose the records "
            "that were taken back; start a new generation (`lakehouse rollback` says where it begins)."
        )
        raise CheckpointError(msg)


def last_written(spark: SparkSession, checkpoint: Checkpoint, ledger: Ledger, tables: Mapping[str, str]) -> int:
    """Last batch of the checkpoint's generation that the ledger or a table has, -1 where there is none.

    `tables`: part of the app id -> path.
    """
    committed = (delta.transaction_version(spark, path, checkpoint.app_id(part)) for part, path in tables.items())
    recorded = (batch for generation, batch in ledger.known(checkpoint.job) if generation == checkpoint.generation)
    return max([*(batch for batch in committed if batch is not None), *recorded], default=-1)


def refuse_old_copy(spark: SparkSession, checkpoint: Checkpoint, ledger: Ledger, tables: Mapping[str, str]) -> None:
    """Refuse a stream's checkpoint that ends before a batch of its generation that was written: an old copy, or files were lost.

    `tables` as for `last_written`. A batch is planned before it is written, so after a crash both sides name the same
    one; where the table is ahead, Spark would plan its batches' numbers anew for other records, and Delta would skip these
    silently. Raises CheckpointError with one sentence; nothing is written.
    """
    planned = last_planned(open_storage(checkpoint.path))
    written = last_written(spark, checkpoint, ledger, tables)
    if written > (-1 if planned is None else planned):
        ends = "before its first batch" if planned is None else f"at batch {planned}"
        msg = (
            f"The checkpoint {checkpoint.path} ends {ends}, but batch {written} of its generation {checkpoint.generation} was "
            "written: it is an old copy, or files of it were lost, and going on would skip records; make a new one with "
            f"`lakehouse checkpoint rebuild {checkpoint.job}` (playbooks/checkpoint-lost.md)."
        )
        raise CheckpointError(msg)


def _refuse_lost(checkpoint: Checkpoint, tables: Mapping[str, str], reached: Mapping[str, int]) -> None:
    for name, path in tables.items():
        version, last = existing_table(absolute(path)).version(), reached.get(name, 0)
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


def _reached(checkpoint: Checkpoint, ledger: Ledger) -> dict[str, int]:
    """Last version of each table that the checkpoint was made at or has written, as far as its marker and the ledger know."""
    last = dict(checkpoint.versions)
    for row in ledger.batches(checkpoint.job):
        if row.generation == checkpoint.generation:
            for name, version in row.versions.items():
                last[name] = max(version, last.get(name, 0))
    return last
