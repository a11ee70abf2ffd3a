"""Retention of dead letters: those closed long enough ago lose their bytes; what they were and became stays."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import TransientError, UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.logging import Log
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.lake.tables import DLQ
from pipelines.runtime import jobs

JOB = "dlq_retention"
_LOG = Log(JOB)
_BYTES = ("_raw_value", "_kafka_key", "_kafka_headers")
_TRIES = 5


def count_due(table: DeltaTable, closed_before: datetime) -> int:
    """How many letters were closed before that moment and still have their bytes."""
    dataset = rows_dataset(table)
    if "_closed_at" not in dataset.schema.names:
        return 0  # a table of an earlier version: nothing was ever closed
    # Not by status: pyarrow pushes no comparison of text into the files that deltalake's update writes (string views).
    has_bytes = ds.field("_raw_value").is_valid() & (ds.field("_closed_at") < closed_before)
    states = dataset.to_table(columns=["_status"], filter=has_bytes).column("_status").to_pylist()
    return sum(state in ("replayed", "discarded") for state in states)


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="conf/local.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only say how many letters and files are due")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the batch from the command line; it needs no Spark."""

    def job(args: argparse.Namespace, settings: Settings) -> None:
        path, days = DLQ.path(settings), settings.dlq.retention_days
        table = open_table(path)
        if table is None:
            msg = f"There is no dead-letter table at {path}; run the Silver job first, or correct `lake.root`."
            raise UsageError(msg)
        before = datetime.now(UTC) - timedelta(days=days)
        due = count_due(table, before)
        old = table.vacuum(dry_run=True)
        sys.stdout.write(
            f"{due:,} dead letters were closed more than {days} days ago and still have their bytes; {len(old):,} files of old "
            "versions are due to be deleted.\n"
        )
        if args.dry_run:
            return
        # Silver writes the same table: one of the two waits.
        with lease_of(settings, "silver", job="dlq", run="retention").hold():
            table.update_incremental()
            stripped = strip_closed(table, before) if due else 0
            # Files of older versions hold the bytes still; those that no version of the last week needs are deleted.
            files = table.vacuum(dry_run=False)
        sys.stdout.write(f"{stripped:,} lost their bytes; {len(files):,} files of old versions were deleted.\n")
        _LOG.info("retention done", letters=stripped, files=len(files))

    return jobs.run_job(job, _parser(), argv)


if __name__ == "__main__":
    run_process(main)
