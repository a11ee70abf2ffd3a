"""Describes the start of a job, as its guards see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Literal

from pyspark.sql import SparkSession

from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.contract.contract import Difference
from pipelines.lake.contract.facts import differences_at
from pipelines.lake.errors import DamagedError, UnknownFeatureError
from pipelines.lake.job_tables import JOBS, JobTables
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.tables import TableDef, TableName
from pipelines.runtime.restores import reached_versions

Fact = Literal["source", "tables", "ledger", "checkpoint"]


class Moment(Enum):
    """When a guard looks."""

    SOURCE = "before the job reads its flags"
    TABLES = "before the job makes a table or a checkpoint"
    CHECKPOINT = "when the job has its checkpoint, before the first batch"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What one start of a job reads, writes and was asked for; the guards look at nothing else.

    `reads`, `writes`: its tables; of those that it writes the columns count, too. `topic`: what Kafka says, where the job reads
    Kafka. `checkpoint_path`: where its checkpoint is or will be. `starting`: flags that say where a new checkpoint begins, ""
    for none; `first_version`: the version of the source that they name, where the job reads a table by versions.
    `is_replay`: a bounded run, whose checkpoint has no offsets of Spark; `dry_run`: it writes nothing, so it mends nothing.
    `checkpoint`: once it is open.
    """

    spark: SparkSession
    settings: Settings
    job: str
    reads: tuple[TableName, ...] = ()
    writes: tuple[TableDef, ...] = ()
    topic: TopicState | None = None
    checkpoint_path: str = ""
    starting: str = ""
    first_version: int | None = None
    is_replay: bool = False
    dry_run: bool = False
    checkpoint: Checkpoint | None = None

    @property
    def tables(self) -> JobTables | None:
        """Where the job leaves what; None for a batch job, which has no checkpoint."""
        return JOBS.get(self.job)

    @property
    def source(self) -> TableName | None:
        """The table whose versions the job reads; None for Kafka."""
        return None if self.tables is None else self.tables.source

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of the lake."""
        return Ledger(self.settings)

    @cached_property
    def differences(self) -> Mapping[TableName, Sequence[Difference]]:
        """What differs from the contract of each table; of one whose log cannot be understood the job's own reads say more."""
        written = {table.name: table for table in self.writes}
        found: dict[TableName, Sequence[Difference]] = {}
        for name in (*written, *self.reads):
            try:
                found[name] = differences_at(name, absolute(name.path(self.settings)), written.get(name))
            except (DamagedError, UnknownFeatureError):
                found[name] = ()
        return found

    @cached_property
    def reached(self) -> Mapping[str, int]:
        """Last version of each table, by name, that the open checkpoint is known to have come to."""
        return reached_versions(self.open_checkpoint, self.ledger)

    @property
    def open_checkpoint(self) -> Checkpoint:
        """The checkpoint, for guards that look once it is open."""
        if self.checkpoint is None:
            msg = f"The guards of {self.job} look at its checkpoint before it is open."
            raise AssertionError(msg)
        return self.checkpoint


@dataclass(frozen=True)
class Guard:
    """A named condition of a start. `refuse` raises one sentence where it does not hold; `holds` says in words what holds.

    `looks_at`: the facts that it needs.
    """

    name: str
    moment: Moment
    looks_at: tuple[Fact, ...]
    holds: str
    refuse: Callable[[Start], None]
