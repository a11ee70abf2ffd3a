"""What the lake holds and how far each layer has come, read in about a second without a JVM and without table data."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse.operations.checkpoints.topic import PATIENCE_SECONDS
from pipelines.lake.access import no_lake
from pipelines.lake.delta_log.file_facts import file_facts
from pipelines.lake.delta_log.opening import deleted_rows, open_table, require_plain
from pipelines.lake.errors import LakehouseError, UnknownFeatureError, UnreadableError, UsageError
from pipelines.lake.kafka.topic import NoAnswerError, NoTopicError, TopicState, ask_topic
from pipelines.lake.lease.layers import look_at_leases
from pipelines.lake.lease.protocol import Holder
from pipelines.lake.ledger.ranges import positions
from pipelines.lake.ledger.reader import LedgerReader
from pipelines.lake.ledger.voids import standing
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.settings import Settings
from pipelines.lake.tables import ALL_TABLES, BRONZE, CIRCUIT_BREAKER, LEDGER
from pipelines.silver.breaker.breaker import Limits

_NEWEST_FILES = 40
"""Ledger files read for each job; streams append one for each batch."""

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


def read_status(settings: Settings) -> LakeStatus:
    """Read tables and Kafka at the same time.

    Raises UsageError where the lake has no table at all. Kafka that does not answer, and what cannot be read, are part of the
    answer.
    """
    with ThreadPoolExecutor(len(ALL_TABLES) + 1) as pool:
        kafka = pool.submit(_ask_kafka, settings)
        opened = dict(zip(ALL_TABLES, pool.map(lambda name: _open(name.path(settings)), ALL_TABLES), strict=True))
        tables = [_table_status(str(name), found) for name, found in opened.items() if found is not None]
        breaker, unknown = _read_breaker(settings, opened[CIRCUIT_BREAKER])
        batches, unread = _read_batches(opened[LEDGER])
        topic, problem, broker = kafka.result()
    if not tables:
        raise no_lake(settings)
    partitions = _partitions(topic, batches) if unread is None else []
    held, unseen = look_at_leases(settings)
    leases = tuple(f"Who holds a lease is not known: {one}" for one in unseen)
    return LakeStatus(tables, _last_batches(batches), partitions, problem, breaker, held, unread, unknown, leases, broker)


def _read_breaker(settings: Settings, table: DeltaTable | LakehouseError | None) -> tuple[BreakerStatus | None, str | None]:
    """The breaker's last change, or why it is not known."""
    if not isinstance(table, DeltaTable):
        return None, None if table is None else f"The breaker's state is not known: {table}"
    # Arrow's dataset, which is slow to import, is loaded only where the breaker has a table.
    from pipelines.silver.breaker.breaker_store import UNREADABLE, BreakerStore  # noqa: PLC0415

    try:
        last = BreakerStore(settings).last()
    except (UnreadableError, UnknownFeatureError) as error:
        return None, f"The breaker's state is not known: {error}"
    except UNREADABLE as error:
        said = str(error).splitlines()[0]
        return None, f"The breaker's state is not known: a file of {CIRCUIT_BREAKER} cannot be read ({said})."
    if last is None:
        return None, None
    retry_at = last.breaker().retry_at(Limits.of(settings.breaker)) if last.to_state == "open" else None
    return BreakerStatus(last.to_state, last.at, retry_at, last.tally.share, last.tally.records, last.reason), None


def _open(path: str) -> DeltaTable | LakehouseError | None:
    try:
        return open_table(path)
    except LakehouseError as error:
        return error


def _table_status(name: str, table: DeltaTable | LakehouseError) -> TableStatus:
    if isinstance(table, LakehouseError):
        return TableStatus(name, None, None, None, None, str(table), _kind(table))
    adds = file_facts(table, ["num_records", "size_bytes"])
    records = adds["num_records"].to_pylist() if "num_records" in adds.column_names else []
    known = len(records) == adds.num_rows and None not in records
    rows, problem = None, None
    try:
        rows = sum(records) - deleted_rows(table) if known else None
        require_plain(table)
    except LakehouseError as error:
        problem = error
    said = (None, None) if problem is None else (str(problem), _kind(problem))
    return TableStatus(name, table.version(), rows, adds.num_rows, sum(adds["size_bytes"].to_pylist()), *said)


def _kind(error: LakehouseError) -> ProblemKind:
    if isinstance(error, UnreadableError):
        return "not readable"
    return "not understood" if isinstance(error, UnknownFeatureError) else "damaged"


def _read_batches(ledger: DeltaTable | LakehouseError | None) -> tuple[list[LedgerRow], str | None]:
    """The ledger's newest rows, or why there are none: the commands that mend it are chosen by what the rest of a status says."""
    if not isinstance(ledger, DeltaTable):
        return [], None if ledger is None else f"How far the layers are is not known: the log of {LEDGER} cannot be read."
    try:
        # Batches that were taken back have read nothing.
        return standing(LedgerReader(ledger).newest_of_each_job(_NEWEST_FILES)), None
    except (UnreadableError, UnknownFeatureError) as error:
        return [], f"How far the layers are is not known: {error}"
    except (DeltaError, OSError, pa.ArrowException) as error:
        said = str(error).splitlines()[0]
        return [], f"How far the layers are is not known: a file of {LEDGER} cannot be read ({said})."


def _last_batches(batches: list[LedgerRow]) -> list[BatchStatus]:
    last = {row.job: row for row in batches}
    return [
        BatchStatus(
            row.job,
            row.generation,
            row.batch_id,
            row.rows_read,
            row.inserted,
            row.committed_at,
            row.duration_ms,
        )
        for row in sorted(last.values(), key=lambda row: _order(row.job))
    ]


def _order(job: str) -> tuple[int, str]:
    flow = ("bronze", "silver", "gold")
    return (flow.index(job) if job in flow else len(flow), job)


def _partitions(topic: TopicState | None, batches: list[LedgerRow]) -> list[PartitionStatus]:
    of_layer = {layer: positions(row for row in batches if row.job == layer) for layer in ("bronze", "silver")}
    ends = {layer: {partition: end for partition, (_, end) in found.items()} for layer, found in of_layer.items()}
    _pass_markers(ends, batches)
    found = []
    start, end, stable = (topic.start, topic.end, topic.stable) if topic is not None else ({}, {}, {})
    for part in sorted(end.keys() | ends["bronze"].keys() | ends["silver"].keys()):
        bronze, silver = (ends[layer].get(part) for layer in ("bronze", "silver"))
        found.append(PartitionStatus(part, start.get(part), end.get(part), bronze, silver, stable.get(part)))
    return found


def _pass_markers(ends: dict[str, dict[int, int]], batches: list[LedgerRow]) -> None:
    """Take Silver's ends to Bronze's where Silver has read each version of Bronze that has rows of the partition.

    Silver's ends are those of records. Bronze's are those of offsets: a transaction's marker is one, and no record.
    """
    silver = (row.versions for row in reversed(batches) if row.job == "silver")
    # The version that Silver's stream comes to next: all before it are read whole.
    comes_to = next((versions[str(BRONZE)] for versions in silver if str(BRONZE) in versions), None)
    if comes_to is None:
        return
    for partition, end in ends["bronze"].items():
        own = ends["silver"].get(partition, 0)
        unread = [first for first, stop in _unread(batches, partition, comes_to) if stop > own]
        ends["silver"][partition] = max(own, min([end, *unread]))


def _unread(batches: list[LedgerRow], partition: int, comes_to: int) -> Iterator[tuple[int, int]]:
    """Ranges [first, stop) of the partition in batches of Bronze that have rows and that Silver has not read."""
    for row in batches:
        span = row.spans.get(partition) if row.job == "bronze" else None
        version = row.versions.get(str(BRONZE))
        if span and span[1] > span[0] and row.rows_read and (version is None or version >= comes_to):
            yield span


def _ask_kafka(settings: Settings) -> tuple[TopicState | None, str | None, str | None]:
    """The topic, or why there is no answer; the third: why nobody could ask."""
    try:
        return ask_topic(settings, PATIENCE_SECONDS), None, None
    except UnreadableError as error:
        return None, None, f"Where the embedded broker is, is not known: {error}"
    except NoTopicError as error:
        return None, f"Kafka at {error.servers} has no topic {settings.kafka.topic}.", None
    except NoAnswerError as error:
        return None, f"Kafka at {error.servers} does not answer{error.missing}.", None
    except UsageError as error:  # the embedded broker does not run
        return None, str(error), None
