"""Reads the batch ledger without the JVM: file statistics say which few of its many small files to open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pipelines.lake.delta_log.file_facts import file_facts
from pipelines.lake.delta_log.opening import require_plain
from pipelines.lake.ledger.schema import SCHEMA
from pipelines.lake.ledger.voids import standing
from pipelines.lake.ledger_row import Kind, LedgerRow
from pipelines.lake.places import place_of
from pipelines.lake.storage.arrow_storage import table_storage
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.storage.protocol import READERS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROUNDED = timedelta(milliseconds=1)
"""Statistics of Spark have whole milliseconds: a maximum may lie so much below the true one."""
_STATS = [f"{end}.{name}" for name in ("job", "generation", "committed_at") for end in ("min", "max")]
_COLUMNS = (*SCHEMA.names, "kind")
File = Mapping[str, Any]
"""A data file's path and the bounds of some columns; None where the log has no statistics."""


class LedgerReader:
    """The ledger as its log was when `table` was opened; a lake without one (None) has no rows."""

    def __init__(self, table: DeltaTable | None) -> None:
        self._table = table
        self._files = [] if table is None else _files(table)

    def rows(
        self,
        *,
        job: str | None = None,
        generation: str | None = None,
        newest: int | None = None,
        after: datetime | None = None,
    ) -> list[LedgerRow]:
        """Rows of a job and a generation, committed after a moment, oldest first.

        `newest`: only of this many of the last files that may hold some. A file without statistics may hold anything, and is
        opened always.
        """
        wanted = _wanted(job, generation)
        files = [file for file in self._files_of(wanted) if after is None or _may_be_after(file, after)]
        if newest is not None:
            files = _newest(files, newest)
        found = _decode(self._read(files, _COLUMNS, wanted))
        return _in_order(row for row in found if after is None or row.committed_at > after)

    def newest_of_each_job(self, count: int) -> list[LedgerRow]:
        """Rows of any job, oldest first: of the last `count` files of each job, or of each run of jobs that share files."""
        groups: dict[tuple[Any, Any], list[File]] = {}
        for file in self._files:
            groups.setdefault((file["min.job"], file["max.job"]), []).append(file)
        files = [file for group in groups.values() for file in _newest(group, count)]
        return _in_order(_decode(self._read(files, _COLUMNS, {})))

    def standing(self, job: str, kind: Kind = Kind.VOID_EVENTS) -> list[LedgerRow]:
        """Rows of a job, oldest first, without void rows and the batches that those of `kind` undo (see voids.py)."""
        return standing(self.rows(job=job), kind)

    def last(self, job: str, generation: str) -> LedgerRow | None:
        """Give the generation's row with the highest batch, among its last files."""
        return max(self.rows(job=job, generation=generation, newest=2), key=lambda row: row.batch_id, default=None)

    def batches(self, job: str, generation: str | None = None) -> set[tuple[str, int]]:
        """Generation and number of all rows of a job."""
        wanted = _wanted(job, generation)
        found = self._read(self._files_of(wanted), ("job", "generation", "batch_id"), wanted)
        return set(zip(found["generation"].to_pylist(), found["batch_id"].to_pylist(), strict=True))

    def _files_of(self, wanted: Mapping[str, str]) -> list[File]:
        return [file for file in self._files if all(_may_hold(file, name, value) for name, value in wanted.items())]

    def _read(self, files: Sequence[File], columns: Sequence[str], wanted: Mapping[str, str]) -> pa.Table:
        """The rows that have the `wanted` values, by the columns' types of today, whatever the files have."""
        schema = pa.schema([_FIELDS[name] for name in columns])
        if self._table is None:
            return schema.empty_table()
        require_plain(self._table)
        storage, place = table_storage(self._table), place_of(self._table)

        def read(file: File) -> pa.Table:
            with told_apart(place), storage.open_input_file(unquote(file["path"])) as stream:
                # Times of files that Spark once wrote are INT96, which Arrow takes for nanoseconds without a zone.
                parquet = pq.ParquetFile(stream, coerce_int96_timestamp_unit="us")
                return _only(_typed(parquet.read(columns=list(columns), use_threads=False), schema), wanted)

        with ThreadPoolExecutor(READERS) as pool:
            return pa.concat_tables([schema.empty_table(), *pool.map(read, files)])


_FIELDS = {one.name: pa.field(one.name, one.type) for one in (*SCHEMA, pa.field("kind", pa.string()))}


def _wanted(job: str | None, generation: str | None) -> dict[str, str]:
    return {name: value for name, value in (("job", job), ("generation", generation)) if value is not None}


def _files(table: DeltaTable) -> list[File]:
    return [{**dict.fromkeys(_STATS), **file} for file in file_facts(table, ["path", *_STATS]).to_pylist()]


def _may_hold(file: File, name: str, value: str) -> bool:
    low, high = file[f"min.{name}"], file[f"max.{name}"]
    # A writer may cut a long text: then the maximum is only how it begins.
    return low is None or high is None or (low <= value and (value <= high or value.startswith(high)))


def _may_be_after(file: File, moment: datetime) -> bool:
    last = file["max.committed_at"]
    return last is None or _aware(last) + _ROUNDED > moment


def _newest(files: Sequence[File], count: int) -> list[File]:
    dated = sorted((file for file in files if file["max.committed_at"]), key=lambda file: _aware(file["max.committed_at"]))
    return dated[-count:] + [file for file in files if not file["max.committed_at"]]


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows by `schema`; columns that a file lacks are empty: ledgers of the first version have no `holes`."""
    columns = [
        rows[one.name].cast(one.type) if one.name in rows.column_names else pa.nulls(rows.num_rows, one.type) for one in schema
    ]
    return pa.table(columns, schema=schema)


def _only(rows: pa.Table, wanted: Mapping[str, str]) -> pa.Table:
    if not wanted:
        return rows
    import pyarrow.compute as pc  # noqa: PLC0415 - a quarter of a second, which `lakehouse status` need not pay

    for name, value in wanted.items():
        rows = rows.filter(pc.equal(rows[name], value))
    return rows


def _decode(rows: pa.Table) -> list[LedgerRow]:
    # Arrow's own way to a time with a zone costs ten times as much as all other columns together.
    columns = {
        name: _times(rows[name]) if pa.types.is_timestamp(rows[name].type) else rows[name].to_pylist() for name in _COLUMNS
    }
    return [LedgerRow.from_columns(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _times(column: pa.ChunkedArray) -> list[datetime | None]:
    micros = column.cast(pa.int64()).to_pylist()
    return [None if one is None else _EPOCH + timedelta(microseconds=one) for one in micros]


def _in_order(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    return sorted(rows, key=lambda row: (row.committed_at, row.batch_id))
