"""Holds what `lakehouse status` shows of tables, batches, partitions, the circuit breaker and leases."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from pipelines.lake.lease.protocol import Holder

ProblemKind = Literal["not readable", "not understood", "damaged"]
"""Why a table's log or rows could not be read: what was not seen is neither absent nor known to be damaged."""


@dataclass(frozen=True)
class TableStatus:
    """A table as its log has it, less the rows that deletion vectors take out; `problem` where that cannot be told.

    `kind` says why: the log is not readable for this user, has a feature that is not understood, or is damaged.
    """

    name: str
    version: int | None
    rows: int | None
    files: int | None
    bytes: int | None
    problem: str | None = None
    kind: ProblemKind | None = None


@dataclass(frozen=True)
class BatchStatus:
    """The last batch that a job recorded; `rows` were read, `duration_ms` is from its start to its ledger row."""

    job: str
    generation: str
    batch_id: int
    rows: int
    inserted: int
    committed_at: datetime
    duration_ms: int


@dataclass(frozen=True)
class PartitionStatus:
    """Next offset of a partition in Kafka, and the end (exclusive) of what Bronze and Silver have read; None: unknown.

    `kafka_stable`: up to which records are committed, so that Bronze can read them; before `kafka_end` while a transaction is
    open.
    """

    partition: int
    kafka_start: int | None
    kafka_end: int | None
    bronze_end: int | None
    silver_end: int | None
    kafka_stable: int | None = None

    @property
    def bronze_lag(self) -> int | None:
        """Offsets that Kafka lets Bronze read and Bronze has not read."""
        if self.kafka_end is None:
            return None
        end = self.kafka_end if self.kafka_stable is None else min(self.kafka_stable, self.kafka_end)
        return max(0, end - max(self.bronze_end or 0, self.kafka_start or 0))

    @property
    def in_transaction(self) -> int:
        """Offsets behind a transaction that is open."""
        return 0 if self.kafka_end is None or self.kafka_stable is None else max(0, self.kafka_end - self.kafka_stable)

    @property
    def silver_lag(self) -> int | None:
        """Offsets that Bronze has read and Silver has not."""
        return None if self.bronze_end is None else max(0, self.bronze_end - (self.silver_end or 0))


@dataclass(frozen=True)
class BreakerStatus:
    """The last change of Silver's circuit breaker; `retry_at` where it is open."""

    state: str
    since: datetime
    retry_at: datetime | None
    share: float
    records: int
    reason: str


@dataclass(frozen=True)
class LakeStatus:
    """Everything that `lakehouse status` shows.

    `kafka` is a sentence where it gave no offsets, `ledger` one where it cannot be read: then `batches` and `partitions` are
    empty, for nobody knows how far the layers are. `breaker` is None where it never opened, or where `breaker_unread` says why
    its table cannot be read; `leases`: who writes a layer's tables at this moment, where `leases_unread` does not say why that
    is not known; `broker_unread`: why it is not known where the embedded broker is.
    """

    tables: list[TableStatus]
    batches: list[BatchStatus]
    partitions: list[PartitionStatus]
    kafka: str | None
    breaker: BreakerStatus | None = None
    leases: dict[str, Holder] = field(default_factory=dict)
    ledger: str | None = None
    breaker_unread: str | None = None
    leases_unread: tuple[str, ...] = ()
    broker_unread: str | None = None

    @property
    def problems(self) -> list[str]:
        """What could not be read, a sentence each; tables that one folder bars share theirs."""
        names: dict[str, list[str]] = {}
        for table in self.tables:
            if table.problem:
                names.setdefault(table.problem, []).append(table.name)
        tables = [f"{', '.join(named)}: {problem}" for problem, named in names.items()]
        return [*(said for said in (self.broker_unread, self.ledger, self.breaker_unread) if said), *self.leases_unread, *tables]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {**asdict(self), "problems": self.problems}
        for plain, partition in zip(found["partitions"], self.partitions, strict=True):
            plain |= {"bronze_lag": partition.bronze_lag, "silver_lag": partition.silver_lag}
        return found
