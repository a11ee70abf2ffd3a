"""Tables that were restored to an old version: a checkpoint that went beyond it must not go on.

RESTORE takes rows back, but neither a stream's position nor Delta's transaction ids: the stream would not read the lost
rows' records again, and a batch that it repeats would be skipped. The RESTORE commit in the table's own log says it,
whoever made it; so nothing has to be written down besides, and nothing can be lost between the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from deltalake import DeltaTable

from pipelines.common import files
from pipelines.common.checkpoints import Checkpoint
from pipelines.common.errors import CheckpointError
from pipelines.common.ledger import Ledger


def restored_since(path: str, version: int) -> int | None:
    """Version of the newest RESTORE among the commits after `version` of the table at `path`; None where there is none.

    Raises CheckpointError where the log no longer reaches back to `version`.
    """
    table = DeltaTable(files.absolute(path))
    newer = table.version() - version
    if newer <= 0:
        return None
    commits = table.history(newer)
    if len(commits) < newer:
        msg = (
            f"The log of {path} reaches back over {len(commits)} of the {newer} commits since version {version}, so whether the "
            "table was restored since cannot be told; start a new generation of the checkpoint."
        )
        raise CheckpointError(msg)
    found = [int(commit["version"]) for commit in commits if commit.get("operation") == "RESTORE"]
    return max((number for number in found if number > version), default=None)


def refuse_restored(checkpoint: Checkpoint, ledger: Ledger, tables: Mapping[str, str]) -> None:
    """Refuse a checkpoint that had written to one of `tables` (name -> path) before that was restored.

    Only commits after the checkpoint's last recorded one are looked at, so a start costs next to nothing. Raises
    CheckpointError with one sentence; nothing is written.
    """
    if checkpoint.is_new and not checkpoint.versions:
        return
    written = _last_written(checkpoint, ledger)
    for name, path in tables.items():
        restored = restored_since(path, max(checkpoint.versions.get(name, 0), written.get(name, 0)))
        if restored is not None:
            msg = (
                f"The table {name} was restored to an older version (by its version {restored}) after the checkpoint "
                f"{checkpoint.path} (generation {checkpoint.generation}) had written to it, so going on would lose the records "
                "that were taken back; start a new generation (`lakehouse rollback` says where it begins)."
            )
            raise CheckpointError(msg)


def _last_written(checkpoint: Checkpoint, ledger: Ledger) -> dict[str, int]:
    last: dict[str, int] = {}
    for row in ledger.batches(checkpoint.job):
        if row["generation"] == checkpoint.generation:
            for name, version in json.loads(row["versions"]).items():
                last[name] = max(version, last.get(name, 0))
    return last
