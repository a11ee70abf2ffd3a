"""One checkpoint, batch by batch, beside what the tables and the ledger say of the same batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from lakehouse.operations.checkpoints.lake_tables import ledger_reader, transactions
from lakehouse.operations.checkpoints.reading import CheckpointState, read_checkpoint
from pipelines.lake.checkpoint.spark_files import DeltaPosition, KafkaPosition, Position
from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.settings import Settings
from pipelines.lake.storage.protocol import Storage

_LEDGER = (
    "job generation batch_id offsets rows_read inserted replaced already_present versions committed_at holes duration_ms".split()
)


@dataclass(frozen=True)
class PartitionRange:
    """Offsets [start, end) that a batch reads of a partition; `start` is None where no file tells."""

    partition: int
    start: int | None
    end: int

    @property
    def count(self) -> int | None:
        """Offsets in the range; records are no more than that."""
        return None if self.start is None else self.end - self.start


@dataclass(frozen=True)
class BatchDetails:
    """A batch as planned; `partitions` for Kafka, `start` and `end` for a Delta table; `ledger` is its row there."""

    batch_id: int
    planned_at: datetime | None
    committed_at: datetime | None
    partitions: list[PartitionRange]
    start: DeltaPosition | None
    end: DeltaPosition | None
    ledger: LedgerRow | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of the ledger what tells how far the batch has come."""
        row = None if self.ledger is None else {name: getattr(self.ledger, name) for name in _LEDGER}
        return {**asdict(replace(self, ledger=None)), "ledger": row}


@dataclass(frozen=True)
class Details:
    """A checkpoint. `transactions`: for each table the last batch of this generation that it has."""

    state: CheckpointState
    batches: list[BatchDetails]
    transactions: dict[str, int | None]
    lake_problem: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        state = self.state
        return {
            "path": state.path,
            **(asdict(state.marker) if state.marker else {}),
            "query_id": state.query_id,
            "planned": state.last_planned,
            "committed": state.last_committed,
            "initial": state.initial.as_dict() if state.initial else None,
            "has_state": state.has_state,
            "transactions": self.transactions,
            "broken": [asdict(file) for file in state.broken],
            "lake_problem": self.lake_problem,
            "batches": [batch.as_dict() for batch in self.batches],
        }


def checkpoint_details(settings: Settings, folder: Storage, *, batch: int | None = None, last: int = 5) -> Details:
    """Read the `last` batches, or one.

    Raises CheckpointError where the folder holds no checkpoint, UsageError where it has no such batch.
    """
    state = read_checkpoint(folder, last=None if batch is not None else last)
    if batch is not None and batch not in state.planned_ids:
        held = f"{state.planned_ids[0]} to {state.planned_ids[-1]}" if state.planned_ids else "none"
        msg = f"The checkpoint {folder.path} has no batch {batch}, it holds {held}; name one of these."
        raise UsageError(msg)
    wanted = [batch] if batch is not None else state.planned_ids[-last:]
    rows: dict[int, LedgerRow] = {}
    ids: dict[str, int | None] = {}
    problem = None
    try:
        if state.marker:
            ids = {str(name): done for name, done in transactions(settings, state.marker).items()}
            reader = ledger_reader(settings)
            newest = None if batch is not None else last + 1
            found = reader.rows(job=state.marker.job, generation=state.marker.generation, newest=newest)
            rows = {row.batch_id: row for row in found}
    except LakehouseError as error:  # the checkpoint is shown all the same
        problem = str(error)
    return Details(state, [_details(state, one, rows.get(one)) for one in wanted], ids, problem)


def _details(state: CheckpointState, batch_id: int, row: LedgerRow | None) -> BatchDetails:
    start, end = state.start(batch_id), state.end(batch_id)
    planned = state.planned.get(batch_id)
    return BatchDetails(
        batch_id=batch_id,
        planned_at=planned.planned_at if planned else None,
        committed_at=state.committed_at(batch_id),
        partitions=partition_ranges(start, end),
        start=start if isinstance(start, DeltaPosition) else None,
        end=end if isinstance(end, DeltaPosition) else None,
        ledger=row,
    )


def partition_ranges(start: Position | None, end: Position | None) -> list[PartitionRange]:
    """What lies between two positions of Kafka; a partition that was added begins at 0, as Spark's source demands."""
    if not isinstance(end, KafkaPosition):
        return []
    if not isinstance(start, KafkaPosition):
        return [PartitionRange(partition, None, offset) for partition, offset in end.offsets.items()]
    return [PartitionRange(partition, start.offsets.get(partition, 0), offset) for partition, offset in end.offsets.items()]
