"""Whether a checkpoint fits the tables and the ledger, above all: whether Delta would skip its next batches silently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deltalake import DeltaTable

from lakehouse.operations.checkpoints.findings import BROKEN, ROLLBACK, Finding, batches
from lakehouse.operations.checkpoints.lake_tables import find_table, ledger_reader, table_id, topic_id, transactions
from lakehouse.operations.checkpoints.reading import CheckpointState
from pipelines.lake.checkpoint.identity import Marker
from pipelines.lake.delta_log.restores import find_restores
from pipelines.lake.job_tables import JOBS
from pipelines.lake.ledger.reader import LedgerReader
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.places import place_of
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, TableName

_NEWEST_ROWS = 100
"""Ledger rows of the generation that are read: a stream writes one a second, and an operator waits."""


def check_lake(settings: Settings, state: CheckpointState) -> Iterator[Finding]:
    """Look at target, transaction ids and ledger; nothing where the marker names no job of the project."""
    marker = state.marker
    if marker is None or marker.job not in JOBS:
        return
    ids = transactions(settings, marker)
    ledger = ledger_reader(settings)
    rows = ledger.rows(job=marker.job, generation=marker.generation, newest=_NEWEST_ROWS)
    target = find_table(settings, JOBS[marker.job].target)
    yield from _check_identity(settings, marker, target, has_run=state.last_committed is not None)
    yield from _check_skipped(state, ids, rows)
    yield from _check_known(marker, ids, rows)
    names = {JOBS[marker.job].target, *JOBS[marker.job].written}
    for name in sorted(names, key=str):
        yield from _check_restored(settings, name, marker, ledger, _last_version(name, marker, rows))


def _check_identity(settings: Settings, marker: Marker, target: DeltaTable | None, *, has_run: bool) -> Iterator[Finding]:
    tables = JOBS[marker.job]
    if target is None:
        if has_run:
            message = f"The table {tables.target}, which the checkpoint writes, does not exist."
            yield Finding("no-target", "error", message, BROKEN)
        return
    if marker.target != table_id(target):
        message = f"The checkpoint writes table {marker.target}, but {tables.target} has id {table_id(target)}: another table."
        yield Finding("foreign-target", "error", message, BROKEN)
    if tables.source is None:
        source = topic_id(target)
        what = "topic"
    else:
        table = find_table(settings, tables.source)
        source = table_id(table) if table else None
        what = str(tables.source)
    if marker.source != source:
        message = f"The checkpoint reads {what} with id {marker.source}, but the lake has {source or 'none'}: another source."
        yield Finding("foreign-source", "error", message, BROKEN)


def _check_skipped(state: CheckpointState, ids: Mapping[TableName, int | None], rows: list[LedgerRow]) -> Iterator[Finding]:
    last = -1 if state.last_planned is None else state.last_planned
    ends = "before its first batch" if last < 0 else f"at batch {last}"
    advice = "it is an old copy; give it a new generation (`checkpoint copy --new-generation`) before a job runs on it"
    ahead = {name: done for name, done in ids.items() if done is not None and done > last}
    for name, done in ahead.items():
        message = (
            f"{name} already has batch {done} of this generation, but the checkpoint ends {ends}: Delta would silently skip "
            f"batch {batches(range(last + 1, done + 1))}; {advice}."
        )
        yield Finding("behind-table", "error", message, BROKEN)
    written = max((row.batch_id for row in rows), default=-1)
    if written > last and not ahead:
        message = f"The ledger has batch {written} of this generation, but the checkpoint ends {ends}: {advice}."
        yield Finding("behind-ledger", "error" if ids else "warning", message, BROKEN)


def _check_known(marker: Marker, ids: Mapping[TableName, int | None], rows: list[LedgerRow]) -> Iterator[Finding]:
    target = JOBS[marker.job].target
    if target in ids and ids[target] is None:
        if any(row.inserted for row in rows):
            message = (
                f"The ledger has rows that generation {marker.generation} inserted, but {target} does not know this generation: "
                "the table was made anew or its log was replaced."
            )
            yield Finding("unknown-generation", "error", message, BROKEN)
        elif not rows:
            message = f"No batch of generation {marker.generation} has reached the tables: it has not run yet."
            yield Finding("not-run", "info", message)


def _last_version(name: TableName, marker: Marker, rows: list[LedgerRow]) -> int | None:
    """Version of the table that the generation wrote last or was made at; None where neither row nor marker says it.

    The job refuses the checkpoint for any RESTORE after it, so all of these have to be found.
    """
    written = [row.versions[str(name)] for row in rows if str(name) in row.versions]
    return max(written, default=marker.versions.get(str(name)))


def _check_restored(
    settings: Settings, name: TableName, marker: Marker, ledger: LedgerReader, last: int | None
) -> Iterator[Finding]:
    table = find_table(settings, name)
    for restore in find_restores(place_of(table), table.version(), since=last).restores if table else ():
        rows = ledger.rows(job=marker.job, generation=marker.generation)
        gone = {row.batch_id for row in rows if restore.taken_back([row.versions.get(str(name))])}
        if gone:
            advice = (
                "`lakehouse checkpoint rebuild bronze` goes on after the rows that are there"
                if name == BRONZE
                else f"`lakehouse rollback {name} --to {restore.kept} --repair` does what has to follow"
            )
            message = (
                f"{name} was restored to version {restore.kept}, and batch {batches(gone)} of this generation wrote after it: "
                f"these rows are gone, which neither checkpoint nor transaction ids tell; {advice}."
            )
            yield Finding("restored-table", "error", message, ROLLBACK)
