"""Takes the bytes from dead letters that were closed long enough ago; what they were and became stays. It needs no Spark."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import TransientError, UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.settings import Settings
from pipelines.lake.tables import DLQ

JOB = "dlq_retention"
_BYTES = ("_raw_value", "_kafka_key", "_kafka_headers")
_TRIES = 5


@dataclass(frozen=True)
class Due:
    """What is due: letters closed before `closed_before` that still have their bytes, and files of old versions."""

    table: DeltaTable
    closed_before: datetime
    letters: int
    files: int


@dataclass(frozen=True)
class Done:
    """How many letters lost their bytes, and how many files of old versions were deleted."""

    letters: int
    files: int


def find_due(settings: Settings, now: datetime) -> Due:
    """Count what is due after `dlq.retention_days`; nothing is written. Raises UsageError where there is no dead-letter table."""
    path = DLQ.path(settings)
    table = open_table(path)
    if table is None:
        msg = f"There is no dead-letter table at {path}; run the Silver job first, or correct `lake.root`."
        raise UsageError(msg)
    before = now - timedelta(days=settings.dlq.retention_days)
    return Due(table, before, _count_due(table, before), len(table.vacuum(dry_run=True)))


def remove_due(settings: Settings, due: Due) -> Done:
    """Take the bytes from the letters that are due, and delete files of old versions, which hold the bytes still.

    A file that a version of the last week needs stays. Idempotent.
    """
    # Silver writes the same table: one of the two waits.
    with lease_of(settings, "silver", job="dlq", run="retention").hold():
        due.table.update_incremental()
        stripped = strip_closed(due.table, due.closed_before) if due.letters else 0
        return Done(stripped, len(due.table.vacuum(dry_run=False)))


def strip_closed(table: DeltaTable, closed_before: datetime) -> int:
    """Take the bytes from letters closed before that moment and return how many; open ones are never touched.

    The rows stay, so that the batch ledger's counts go on to be what the table holds. Idempotent. Raises TransientError
    where other writers' commits came first each time.
    """
    moment = closed_before.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    for _ in range(_TRIES):
        try:
            done = table.update(
                updates=dict.fromkeys(_BYTES, "NULL"),
                predicate=f"_status IN ('replayed', 'discarded') AND _raw_value IS NOT NULL AND _closed_at < '{moment}'",
                commit_properties=CommitProperties(custom_metadata={"lakehouse": JOB}),
            )
        except CommitFailedError:
            table.update_incremental()
        else:
            return int(done["num_updated_rows"])
    msg = (
        f"Other writers changed the dead-letter table {_TRIES} times in a row; nothing was done, run the batch again "
        "(playbooks/dead-letters.md)."
    )
    raise TransientError(msg)


def _count_due(table: DeltaTable, closed_before: datetime) -> int:
    """How many letters were closed before that moment and still have their bytes."""
    dataset = rows_dataset(table)
    if "_closed_at" not in dataset.schema.names:
        return 0  # a table of an earlier version: nothing was ever closed
    # Not by status: pyarrow pushes no comparison of text into the files that deltalake's update writes (string views).
    has_bytes = ds.field("_raw_value").is_valid() & (ds.field("_closed_at") < closed_before)
    states = dataset.to_table(columns=["_status"], filter=has_bytes).column("_status").to_pylist()
    return sum(state in ("replayed", "discarded") for state in states)
