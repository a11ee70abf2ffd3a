"""Bronze's table, read and written without Spark: rows leave it, or come back, by one commit that changes no record.

Both commits say `dataChange: false`: what is moved to the archive and back is no news to a reader of changes. So a stream that
runs on Bronze neither stops at the commit nor reads rows a second time, and `delta.appendOnly` stays true: Delta allows what
rearranges rows, and goes on to refuse everything else.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from pipelines.archive.content import figures, read
from pipelines.archive.storage import dataset, write_files
from pipelines.lake.delta_log.opening import existing_table, open_table, require_plain
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import DataLossError, UsageError
from pipelines.lake.places import place_of
from pipelines.lake.settings import Settings
from pipelines.lake.storage.arrow_storage import open_folder
from pipelines.lake.tables import BRONZE

_STATISTICS = ("_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_ingested_at", "_event_date")
_EPOCH = date(1970, 1, 1)
_NO_DAY = 2**31
_LEVEL = 1
"""As the jobs write (see session.py)."""


@dataclass(frozen=True)
class _File:
    """A data file of the table: `path` as the log has it, days since 1970 (a wrong clock's are beyond Python's calendar)."""

    path: str
    size: int
    first_day: int | None
    last_day: int | None

    def may_hold(self, days: Collection[int]) -> bool:
        """Whether a row of `days` can be in it; without statistics it can."""
        if self.first_day is None or self.last_day is None:
            return True
        return any(self.first_day <= day <= self.last_day for day in days)


@dataclass(frozen=True)
class HotTable:
    """Bronze at one version."""

    table: DeltaTable

    @staticmethod
    def open(settings: Settings) -> HotTable:
        """Open the newest version; raises UsageError where there is no Bronze table."""
        path = BRONZE.path(settings)
        table = open_table(path)
        if table is None:
            msg = f"There is no Bronze table at {path}; run the Bronze job first, or correct `lake.root`."
            raise UsageError(msg)
        return HotTable(table)

    def newest(self) -> HotTable:
        """The table as it is now."""
        return HotTable(existing_table(place_of(self.table)))

    @property
    def version(self) -> int:
        """Version of the table."""
        return self.table.version()

    @cached_property
    def rows(self) -> ds.Dataset:
        """All rows."""
        return rows_dataset(self.table)

    @cached_property
    def files(self) -> list[_File]:
        """All data files."""
        adds = pa.table(self.table.get_add_actions(flatten=True))
        nothing = pa.nulls(adds.num_rows, pa.int32())
        bounds = [
            adds.column(name).cast(pa.int32()) if name in adds.column_names else nothing
            for name in ("min._event_date", "max._event_date")
        ]
        columns = (adds.column("path"), adds.column("size_bytes"), *bounds)
        return [_File(*values) for values in zip(*(column.to_pylist() for column in columns), strict=True)]

    def counts(self, before: date) -> dict[date, int]:
        """How many rows each day before `before` has; files of younger days are not opened."""
        scanner = self.rows.scanner(columns=["_event_date"], filter=pc.field("_event_date") < pa.scalar(before, pa.date32()))
        found: Counter[int] = Counter()
        for batch in scanner.to_batches():
            found.update(_by_day(batch.column("_event_date")))
        return {_EPOCH + timedelta(days=day): rows for day, rows in sorted(found.items())}

    def take_out(self, then: HotTable, counted: Mapping[date, int], note: Mapping[str, Any]) -> dict[date, int]:
        """Remove the rows of the days `counted` (rows at the version `then`) in one commit; return the days removed.

        A day that has other rows than `then` is left alone: one with more rows, all of them where files were rewritten.
        Files that hold other days as well are written anew without these; that their rows are the same is looked at before
        the commit. The caller holds Bronze's lease. Raises DataLossError where a rewritten file differs; nothing is removed.
        """
        wanted = {(day - _EPOCH).days: rows for day, rows in counted.items()}
        names = {file.path for file in self.files}
        if any(file.path not in names for file in then.files if file.may_hold(wanted)):
            return {}
        held = {file: self._days_in(file) for file in self.files if file.may_hold(wanted)}
        total = sum(held.values(), Counter[int]())
        removed = {day for day, rows in wanted.items() if total[day] == rows}
        actions: list[AddAction | RemoveAction] = []
        written: list[str] = []
        try:
            for file, found in held.items():
                if removed & found.keys():
                    actions.append(_remove(file))
                    if found.keys() - removed:
                        actions += self._without(file, removed, written)
            if actions:
                self._commit(actions, note)
        except Exception:
            self.discard(written)
            raise
        return {day: rows for day, rows in counted.items() if (day - _EPOCH).days in removed}

    def put_back(self, names: Sequence[str], note: Mapping[str, Any]) -> None:
        """Add the files `names`, which lie in the table's folder, in one commit; the caller holds Bronze's lease."""
        self._commit([self._add(name) for name in names], note)

    def write(self, rows: pa.RecordBatchReader) -> list[str]:
        """Write rows to files in the table's folder, which no version has yet, and return their names."""
        system, root = open_folder(place_of(self.table))
        return write_files(system, root, rows, level=_LEVEL)

    def discard(self, names: Sequence[str]) -> None:
        """Delete files that `write` wrote and no commit has taken: after a failure they would lie there for ever.

        Those that the table has by now stay: a commit may have come through before its writer heard of an error.
        """
        try:
            taken = {unquote(file.path) for file in self.newest().files}
        except Exception:  # the table cannot be read: what is in it is not known, so nothing is deleted
            return
        system, root = open_folder(place_of(self.table))
        for name in names:
            if name not in taken:
                with suppress(OSError):  # VACUUM deletes it after a week
                    system.delete_file(f"{root}/{name}")

    def dataset(self, names: Sequence[str]) -> ds.Dataset:
        """Rows of files in the table's folder, with the types of the table: those in a file (INT96) may have no zone."""
        require_plain(self.table)
        system, root = open_folder(place_of(self.table))
        return dataset(system, [f"{root}/{name}" for name in names], self.rows.schema)

    def _days_in(self, file: _File) -> Counter[int]:
        return Counter(_by_day(self.dataset([unquote(file.path)]).to_table(columns=["_event_date"]).column("_event_date")))

    def _without(self, file: _File, days: Collection[int], written: list[str]) -> Iterator[AddAction]:
        """Write the rows of a file that are of no day of `days` to another, whose name `written` gets, and read them back."""
        source = self.dataset([unquote(file.path)])
        rest = pc.field("_event_date").is_null() | ~pc.field("_event_date").isin(
            pa.array(sorted(days), pa.int32()).cast(pa.date32())
        )

        def rows() -> pa.RecordBatchReader:
            return source.scanner(filter=rest, batch_size=32_768, batch_readahead=4, fragment_readahead=2).to_reader()

        names = self.write(rows())
        written += names
        if figures(read(self.dataset(names))) != figures(rows()):
            msg = (
                f"Rows of {file.path} that stay in Bronze were not written as they are; nothing was removed, look at the disk "
                "(playbooks/bronze-archive.md)."
            )
            raise DataLossError(msg)
        yield from map(self._add, names)

    def _add(self, name: str) -> AddAction:
        system, root = open_folder(place_of(self.table))
        size = system.get_file_info(f"{root}/{name}").size
        statistics = _statistics(self.dataset([name]).to_table(columns=list(_STATISTICS)))
        return AddAction(name, size, {}, int(time.time() * 1000), False, json.dumps(statistics))

    def _commit(self, actions: list[AddAction | RemoveAction], note: Mapping[str, Any]) -> None:
        properties = CommitProperties(custom_metadata={"userMetadata": json.dumps(dict(note), default=str)})
        self.table.create_write_transaction(actions, "append", self.table.schema(), commit_properties=properties)


def _by_day(column: pa.ChunkedArray | pa.Array) -> dict[int, int]:
    counts = {row["values"]: row["counts"] for row in column.cast(pa.int32()).value_counts().to_pylist()}
    # A row without a day belongs to none: a file that has one is never removed as a whole.
    return {_NO_DAY if day is None else day: rows for day, rows in counts.items()}


def _remove(file: _File) -> RemoveAction:
    return RemoveAction(
        path=file.path, data_change=False, deletion_timestamp=int(time.time() * 1000), size=file.size, partition_values={}
    )


def _statistics(rows: pa.Table) -> dict[str, Any]:
    """Delta's statistics of a file; a column whose bounds cannot be written has none, and so prunes nothing."""
    lows, highs = dict[str, Any](), dict[str, Any]()
    for name in _STATISTICS:
        bounds = pc.min_max(rows.column(name))
        try:
            low, high = (bounds[end].as_py() for end in ("min", "max"))
            if low is not None:
                lows[name], highs[name] = _bound(low), _bound(high, up=True)
        except (OverflowError, ValueError):  # a time beyond Python's calendar
            lows.pop(name, None)
    nulls = {name: rows.column(name).null_count for name in _STATISTICS}
    return {"numRecords": rows.num_rows, "minValues": lows, "maxValues": highs, "nullCount": nulls}


def _bound(value: Any, *, up: bool = False) -> Any:
    if isinstance(value, datetime):
        # In whole milliseconds, as Delta writes them: the lower bound down, the upper one up.
        value = value.astimezone(UTC) + timedelta(microseconds=999 if up else 0)
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def new_run() -> str:
    """Make the id of a run."""
    return uuid.uuid4().hex[:12]
