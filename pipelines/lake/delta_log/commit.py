"""Describes a commit of a Delta table, and judges whether it is the project's own.

Others commit too, with whatever metadata they like: free text, JSON of any shape, even our keys with other types. So no reader of
commits parses `userMetadata` itself: `said` gives what is an object, `batch_row` and `note` what one of our writers wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipelines.lake.delta_log.batch_metadata import row_in
from pipelines.lake.delta_log.commit_values import mapping, said, text, whole
from pipelines.lake.delta_log.marks import APP_IDS, MARK
from pipelines.lake.ledger_row import BatchRow


@dataclass(frozen=True)
class Commit:
    """A commit as its file in the log has it; what is missing there, or of another type than Delta writes, is empty here.

    `transactions`: app id -> version. `appends`, `removes`: data files with dataChange. `configuration`: the table's properties
    where the commit changes its metadata. `info`: all that the commit says of itself.
    """

    version: int
    info: Mapping[str, Any] = field(default_factory=dict)
    transactions: Mapping[str, int] = field(default_factory=dict)
    appends: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """Files of change data."""
    added_rows: int | None = 0
    removed_rows: int | None = 0
    configuration: Mapping[str, str] | None = None
    changed_bytes: int = 0
    """Size of the files that the change feed reads for this commit."""

    @property
    def operation(self) -> str:
        """Name of the operation, such as `WRITE`; empty where the commit does not say."""
        return text(self.info.get("operation"))

    @property
    def changes_rows(self) -> bool:
        """Whether rows were added, changed or removed: not by OPTIMIZE, VACUUM, or a change of properties."""
        return bool(self.appends or self.removes or self.changes)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameters of the operation."""
        return mapping(self.info.get("operationParameters"))

    @property
    def at(self) -> datetime | None:
        """When it was made, by the clock of who made it."""
        stamp = self.info.get("timestamp")
        if not isinstance(stamp, int | float):
            return None
        try:
            return datetime.fromtimestamp(stamp / 1000, UTC)
        except (OverflowError, OSError, ValueError):
            return None

    @property
    def said(self) -> dict[str, Any]:
        """The commit's `userMetadata` as an object; empty where it is anything else."""
        return said(self.info.get("userMetadata"))

    @property
    def writer(self) -> str:
        """What wrote it, as it says: the engine, and the client's version."""
        return text(self.info.get("engineInfo")) or text(self.info.get("clientVersion")) or "unknown"

    @property
    def restored_to(self) -> int | None:
        """Version that a RESTORE went back to; None where it is no RESTORE, or does not say."""
        if self.operation != "RESTORE":
            return None
        return whole(self.parameters.get("version"))

    def metric(self, key: str) -> int | None:
        """A number that the commit says of itself; None where it does not."""
        return whole(mapping(self.info.get("operationMetrics")).get(key))

    @property
    def is_marked(self) -> bool:
        """Whether a writer of the project left its mark: a transaction id, what a batch or command says, or its name."""
        if any(app.startswith(APP_IDS) for app in self.transactions):
            return True
        if isinstance(self.info.get(MARK), str) or isinstance(self.said.get(MARK), str):
            return True
        is_batch = any(self.batch_row(job) is not None for job in ("silver", "gold"))
        return is_batch or any(self.note(key) for key in ("rollback", "rebuild"))

    def note(self, key: str) -> dict[str, Any]:
        """What a command of ours wrote below `key` (`rollback`, `rebuild`); empty where it did not."""
        found = self.said.get(key)
        return found if isinstance(found, dict) else {}

    def batch_row(self, job: str) -> BatchRow | None:
        """The ledger row of the batch of `job` that made this commit; None where it is somebody else's.

        Ours it is if the metadata has all that a batch writes, each of its type, and the commit itself agrees: a MERGE changes
        rows, an append carries the batch's transaction id. A copy of our metadata in an OPTIMIZE is none of ours.
        """
        if self.operation not in ("WRITE", "MERGE"):
            return None
        row = row_in(self.said, job)
        if row is None or self.operation == "MERGE":
            return row if self.changes_rows else None
        own = any(app.endswith(row.generation) and number == row.batch_id for app, number in self.transactions.items())
        return row if own else None
