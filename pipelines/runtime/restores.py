"""Finds tables that went back to an old version, and says how far a checkpoint had written.

RESTORE takes rows back, but neither a stream's position nor Delta's transaction ids: the stream would not read the lost
rows' records again, and a batch that it repeats would be skipped. The RESTORE commit in the table's own log says it,
whoever made it; so nothing has to be written down besides, and nothing can be lost between the two.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import SparkSession

from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.restores import find_restores
from pipelines.lake.errors import CheckpointError
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.places import absolute
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


def reached_versions(checkpoint: Checkpoint, ledger: Ledger) -> dict[str, int]:
    """Last version of each table that the checkpoint was made at or has written, as far as its marker and the ledger know."""
    last = dict(checkpoint.versions)
    for row in ledger.batches(checkpoint.job):
        if row.generation == checkpoint.generation:
            for name, version in row.versions.items():
                last[name] = max(version, last.get(name, 0))
    return last
