"""Rows of the batch ledger, read without the JVM: file statistics say which few files to open."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from lakehouse.operations.checkpoints.lake_tables import find_table
from pipelines.lake.delta_log.opening import require_plain
from pipelines.lake.ledger.voids import EVENTS, Voided, is_void_row
from pipelines.lake.settings import Settings
from pipelines.lake.storage.arrow_storage import table_storage
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.storage.protocol import READERS
from pipelines.lake.tables import LEDGER

_COLUMNS = (
    "job generation batch_id offsets rows_read inserted replaced already_present holes versions committed_at duration_ms".split()
)
_STATS = [f"{end}.{name}" for name in ("job", "generation", "committed_at") for end in ("min", "max")]


@dataclass(frozen=True)
class LedgerRow:
    """What a batch recorded; `offsets` are [start, end) of partitions, of Gold `silver_version`: [first, last]."""

    job: str
    generation: str
    batch_id: int
    offsets: dict[str, list[int]]
    rows_read: int
    inserted: int
    replaced: int
    already_present: int
    versions: dict[str, int]
    committed_at: datetime
    holes: dict[str, list[list[int]]] = field(default_factory=dict)
    """Ranges [start, end) inside `offsets` of which the batch saw no record."""
    duration_ms: int = 0


class LedgerReader:
    """The ledger as its log was when this was made; a lake without one has no rows."""

    def __init__(self, settings: Settings) -> None:
        self._table = find_table(settings, LEDGER)
        self._files = [] if self._table is None else _files(self._table)

    def rows(self, *, job: str | None = None, generation: str | None = None, newest: int | None = None) -> list[LedgerRow]:
        """Rows of a job and a generation, oldest first; `newest`: only of this many of the last files that may hold some."""
        wanted = {name: value for name, value in (("job", job), ("generation", generation)) if value is not None}
        files = [file for file in self._files if all(_may_hold(file, name, value) for name, value in wanted.items())]
        if newest is not None:
            # A file without statistics may hold anything, and is opened always.
            dated = sorted((file for file in files if file["max.committed_at"]), key=lambda file: file["max.committed_at"])
            files = dated[-newest:] + [file for file in files if not file["max.committed_at"]]
        found = [_row(row) for row in self._read([file["path"] for file in files])]
        rows = [row for row in found if all(getattr(row, name) == value for name, value in wanted.items())]
        return sorted(rows, key=lambda row: (row.committed_at, row.batch_id))

    def standing(self, job: str, kind: str = EVENTS) -> list[LedgerRow]:
        """Rows of a job, oldest first, without batches whose `kind` a rollback took back (see voids.py)."""
        rows = self.rows(job=job)
        known = [{"generation": row.generation, "batch_id": row.batch_id, "versions": json.dumps(row.versions)} for row in rows]
        voided = Voided.of(known, kind)
        return [row for row, one in zip(rows, known, strict=True) if not is_void_row(one) and not voided.has(one)]

    def last(self, job: str, generation: str) -> LedgerRow | None:
        """Give the generation's row with the highest batch, among its last files."""
        return max(self.rows(job=job, generation=generation, newest=2), key=lambda row: row.batch_id, default=None)

    def _read(self, paths: list[str]) -> list[dict[str, Any]]:
        if self._table is None:
            return []
        require_plain(self._table)
        storage = table_storage(self._table)

        def read(path: str) -> list[dict[str, Any]]:
            with told_apart(path), storage.open_input_file(path) as file:
                rows: list[dict[str, Any]] = pq.ParquetFile(file).read(columns=_COLUMNS, use_threads=False).to_pylist()
                return rows

        with ThreadPoolExecutor(READERS) as pool:
            return [row for rows in pool.map(read, paths) for row in rows]


def _files(table: DeltaTable) -> list[dict[str, Any]]:
    adds = pa.table(table.get_add_actions(flatten=True))
    names = [name for name in ["path", *_STATS] if name in adds.column_names]
    return [{**dict.fromkeys(_STATS), **file} for file in adds.select(names).to_pylist()]


def _may_hold(file: dict[str, Any], name: str, value: str) -> bool:
    low, high = file[f"min.{name}"], file[f"max.{name}"]
    return low is None or high is None or low <= value <= high


def _row(row: dict[str, Any]) -> LedgerRow:
    # Ledgers of the first version have no `holes`.
    decoded = {name: json.loads(row.get(name) or "{}") for name in ("offsets", "holes", "versions")}
    counts = {name: row.get(name) or 0 for name in ("rows_read", "inserted", "replaced", "already_present", "duration_ms")}
    return LedgerRow(**{**row, **counts, **decoded})
