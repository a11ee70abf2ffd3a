"""What batches wrote before their ledger row: known by the `userMetadata` of their commits, whoever comes after a crash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.common import files
from pipelines.common.ledger import BatchRow
from pipelines.common.opening import existing_table

_NEWEST = 50
"""Commits looked through: one that died is among the last."""


@dataclass(frozen=True)
class BatchCommit:
    """A commit that a batch made; `row` is its ledger row as far as it was known then."""

    version: int
    is_merge: bool
    row: BatchRow

    @property
    def batch(self) -> tuple[str, int]:
        """Generation and number of the batch."""
        return self.row.generation, self.row.batch_id


def batch_commits(path: str, job: str) -> list[BatchCommit]:
    """Commits of the job's batches among the newest of the table at `path`, oldest first; read without Spark.

    Those that a RESTORE took back are left out.
    """
    found: list[BatchCommit] = []
    for commit in reversed(existing_table(files.absolute(path)).history(_NEWEST)):
        said, operation = _said(commit), commit.get("operation")
        kept = (commit.get("operationParameters") or {}).get("version")
        if operation == "RESTORE" and kept is not None:
            found = [one for one in found if one.version <= int(kept)]
        elif said.get("job") == job and "batch_id" in said:
            found.append(BatchCommit(int(commit["version"]), operation == "MERGE", BatchRow.from_metadata(said)))
    return found


def _said(commit: Mapping[str, Any]) -> dict[str, Any]:
    try:
        said = json.loads(commit.get("userMetadata") or "{}")
    except ValueError:  # somebody else's words
        return {}
    return said if isinstance(said, dict) else {}
