"""What the doctor judges: facts that `reading` takes from Kafka, the lake and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from lakehouse.operations.checkpoints.findings import Finding as CheckpointFinding
from lakehouse.operations.checkpoints.reading import CheckpointState
from lakehouse.operations.doctor.commands import Commands
from lakehouse.operations.doctor.findings import Confidence
from lakehouse.operations.status.facts import LakeStatus
from pipelines.lake.contract.contract import Difference
from pipelines.lake.delta_log.commit import Commit
from pipelines.lake.delta_log.derived_files import Damage
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.lease.protocol import Holder
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.settings import Settings
from pipelines.lake.tables import TableName

NEWEST_ROWS = 300
"""Ledger rows of a job that are looked at: a live stream writes one a second, and an operator waits."""

THE_TABLES = "the tables"
"""Key of `unread` where no table could be opened at all."""
THE_CHECKPOINTS, THE_GAPS, THE_TOPIC_ID, THE_LEASES = "the checkpoints", "ops.known_gaps", "Bronze's properties", "the leases"
THE_BROKER = "where the embedded broker is"
"""Keys of `unread` for facts without which a finding would be a guess."""


@dataclass(frozen=True)
class HeldBy:
    """Who holds a lock; `is_stopped`: the process lives on this machine and is stopped (SIGSTOP), None: unknown."""

    holder: Holder
    is_stopped: bool | None = None


@dataclass(frozen=True)
class StreamCheckpoint:
    """The checkpoint that a job's stream uses: the one that is locked, otherwise the one that changed last.

    `next_path` is where a new generation would lie; `problem` says why the checkpoint cannot be judged.
    """

    job: str
    path: str
    next_path: str
    state: CheckpointState | None
    findings: tuple[CheckpointFinding, ...] = ()
    lock: HeldBy | None = None
    is_guarded: bool = True
    """Whether a driver on it would hold a lock: not on an object store."""
    problem: str | None = None
    unread: str | None = None
    """Why the checkpoint, or what it is compared with, could not be read: nothing is known against it."""
    lock_unread: str | None = None
    """Why nobody can tell whether somebody runs on it."""


@dataclass(frozen=True)
class Letters:
    """Counts of dead letters; `open_by` rule and Kafka day.

    `now_known`: of those without a schema, how many name a version that has a file now, by version; `stuck`: ids of replays
    that died.
    """

    total: int = 0
    open: int = 0
    open_by: Mapping[str, Mapping[date, int]] = field(default_factory=dict)
    now_known: Mapping[str, int] = field(default_factory=dict)
    stuck: tuple[str, ...] = ()


@dataclass(frozen=True)
class Disk:
    """A file system that holds `path`; bytes."""

    path: str
    total: int
    free: int


@dataclass(frozen=True)
class ClosedDay:
    """A billed day, and how many events Gold has more (or fewer) than bill and adjustments; customers whose bill is off."""

    day: date
    events: int
    customers: int


@dataclass(frozen=True)
class RefusedDay:
    """A day that waits at the gate before the bill: when it was refused, and the ids of the expectations that blocked it."""

    day: date
    audited_at: datetime
    blocking: tuple[str, ...]


@dataclass(frozen=True)
class Foreign:
    """A commit that changed rows of a table and that none of our writers marked."""

    table: TableName
    commit: Commit
    confidence: Confidence


@dataclass(frozen=True)
class Neighbours:
    """What others did to the tables: differences from the contract, damaged derived files, commits that changed rows."""

    differences: tuple[Difference, ...] = ()
    damage: Mapping[TableName, Damage] = field(default_factory=dict)
    commits: tuple[Foreign, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All that was read. `kafka_problem` is a sentence where it gave nothing, `unread` what could not be looked at, and why."""

    settings: Settings
    commands: Commands
    now: datetime
    status: LakeStatus
    topic: TopicState | None = None
    kafka_problem: str | None = None
    topic_is_missing: bool = False
    bronze_topic_id: str | None = None
    checkpoints: Mapping[str, StreamCheckpoint] = field(default_factory=dict)
    rows: Mapping[str, list[LedgerRow]] = field(default_factory=dict)
    """For each job the newest rows of the ledger, oldest first, at most about NEWEST_ROWS."""
    known_gaps: Mapping[int, list[tuple[int, int]]] = field(default_factory=dict)
    """For each partition the holes [start, end) that `ops.known_gaps` explains."""
    letters: Letters = field(default_factory=Letters)
    leases: Mapping[str, HeldBy] = field(default_factory=dict)
    disks: tuple[Disk, ...] = ()
    closed_days: tuple[ClosedDay, ...] = ()
    refused_days: tuple[RefusedDay, ...] = ()
    """Days that wait at the gate, the oldest first."""
    neighbours: Neighbours = field(default_factory=Neighbours)
    schema_problem: str | None = None
    """Why no job can start with the event schemas as they are."""
    unread: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, *what: str) -> bool:
        """Whether one of these could not be read: a finding that rests on it is left out."""
        return any(one in self.unread for one in what)

    def knows_lock(self, job: str) -> bool:
        """Whether it is known if somebody runs on the job's checkpoint."""
        checkpoint = self.checkpoints.get(job)
        return not self.lacks(THE_CHECKPOINTS) and (checkpoint is None or checkpoint.lock_unread is None)
