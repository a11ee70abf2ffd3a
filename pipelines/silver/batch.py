"""Name the running batch, and the tables and Delta transactions that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.errors import DataLossError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.tables import DLQ, SILVER, TableName
from pipelines.silver.facts import Longs

JOB = "silver"
POISON_PART = "dlq-poison"
"""Part of the app id of dead letters that are written once poison was found."""


@dataclass(frozen=True)
class Batch:
    """A batch that runs; `poison`: coordinates of its records whose processing fails."""

    number: int
    started: datetime
    poison: Longs


@dataclass(frozen=True)
class Targets:
    """Paths of the written tables, and the checkpoint whose transactions the writes are."""

    silver: str
    dlq: str
    checkpoint: Checkpoint

    @property
    def paths(self) -> dict[str, str]:
        """The written tables by name."""
        return {str(SILVER): self.silver, str(DLQ): self.dlq}

    @property
    def parts(self) -> dict[str, str]:
        """The written tables by part of the app id."""
        return {part: self.paths[str(table)] for part, table in JOBS[JOB].transactions.items()}

    def key(self, batch: Batch) -> tuple[str, int]:
        """Generation and number of the batch."""
        return self.checkpoint.generation, batch.number

    def append_of(self, name: TableName, batch: Batch) -> tuple[str, str]:
        """Path of the table and the app id of the batch's append to it."""
        if name == SILVER:
            return self.silver, self.checkpoint.app_id()
        # Another transaction where the batch is tried again without its poison: the first try's would keep it out.
        return self.dlq, self.checkpoint.app_id(POISON_PART if len(batch.poison) else "dlq")

    def lost_rows(self, name: TableName, batch: Batch, count: int) -> DataLossError:
        """The error of an append whose rows Delta would skip."""
        return DataLossError(
            f"Batch {batch.number} of generation {self.checkpoint.generation} was written to {name} before, yet it has "
            f"{count} rows more now: the schema files or settings changed, the table was restored, or the checkpoint is an old "
            "copy; put files and settings back until the batch is complete, or start with a new checkpoint path."
        )
