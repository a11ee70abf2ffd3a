"""Reads the newest batches of each job from the ledger."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse.operations.status.facts import BatchStatus
from pipelines.lake.errors import LakehouseError, UnknownFeatureError, UnreadableError
from pipelines.lake.ledger.reader import LedgerReader
from pipelines.lake.ledger.voids import standing
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.tables import LEDGER

_NEWEST_FILES = 40
"""Ledger files read for each job; streams append one for each batch."""


def newest_batches(ledger: DeltaTable | LakehouseError | None) -> tuple[list[LedgerRow], str | None]:
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


def last_batches(batches: list[LedgerRow]) -> list[BatchStatus]:
    """The last batch of each job, in the order of the data's flow."""
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
