"""Lists each job's tables: what it reads and writes, its checkpoint's target, and where batches leave a transaction id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.lake.errors import UsageError
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, DLQ, GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, SILVER, TableName


@dataclass(frozen=True)
class JobTables:
    """What a job reads (None: Kafka), the table that its checkpoint names as target, what it writes, and where it leaves an id.

    `outputs`: without the ledger, which every job writes.
    """

    source: TableName | None
    target: TableName
    outputs: tuple[TableName, ...]
    transactions: Mapping[str, TableName] = field(default_factory=dict)
    """Part of the app id -> table. Gold has none: its MERGE is idempotent by itself, and a position is of any checkpoint."""
    reads_changes: bool = False
    """Whether it reads its source's change feed, by versions; otherwise the rows that each version added."""

    @property
    def written(self) -> tuple[TableName, ...]:
        """The tables in which batches leave an id, each once."""
        return tuple(dict.fromkeys(self.transactions.values()))

    def transaction_paths(self, settings: Settings) -> dict[str, str]:
        """Part of the app id -> path of the table."""
        return {part: table.path(settings) for part, table in self.transactions.items()}

    def written_paths(self, settings: Settings) -> dict[str, str]:
        """Name -> path of each table in which batches leave an id."""
        return {str(table): table.path(settings) for table in self.written}


JOBS = {
    "bronze": JobTables(None, BRONZE, (BRONZE,), {"": BRONZE}),
    # A batch that is tried again without the records that fail takes another id: the first try's would keep its letters out.
    "silver": JobTables(BRONZE, SILVER, (SILVER, DLQ), {"": SILVER, "dlq": DLQ, "dlq-poison": DLQ}),
    "gold": JobTables(SILVER, GOLD_HOURLY, (GOLD_BY_KEY, GOLD_HOURLY, GOLD_DAILY), reads_changes=True),
}


def job_tables(job: str) -> JobTables:
    """The tables of a job; raises UsageError where there is no such job."""
    if job not in JOBS:
        msg = f"There is no job `{job}` with a checkpoint, expected one of {', '.join(JOBS)}; correct the name."
        raise UsageError(msg)
    return JOBS[job]
