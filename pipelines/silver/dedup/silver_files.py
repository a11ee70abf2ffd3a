"""Silver's data files, read without Spark: a lookup of some ids costs milliseconds, not a job over a new snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.plain_read import files_dataset
from pipelines.lake.storage.places import absolute
from pipelines.silver.dedup.recent_keys import units_of
from pipelines.silver.facts import Flags, Longs

LONGS = np.iinfo(np.int64)


@dataclass(frozen=True)
class Places:
    """Where rows may lie; a file that can hold any of it is opened.

    `units`: Kafka times as `units_of`, `days`: days of event_timestamp since the epoch, `spans`: ranges of Kafka times
    (milliseconds), inclusive.
    """

    units: Longs
    days: Longs
    spans: Sequence[tuple[int, int]] = ()


@dataclass
class SilverFiles:
    """The newest version of a Delta table without partitions and deletion vectors."""

    path: str
    _table: DeltaTable | None = field(default=None)

    def read(self, keys: Longs, places: Places, columns: Sequence[str]) -> pa.Table:
        """Rows whose `_event_key` is one of `keys`, from the files where `places` can lie: exact if the rows lie there."""
        table = self._newest()
        adds = pa.table(table.get_add_actions(flatten=True))
        names = adds.column("path").take(pa.array(np.flatnonzero(_may_hold(adds, places)))).to_pylist()
        schema = pa.schema(table.schema().to_arrow())
        wanted = pa.schema([schema.field(name) for name in dict.fromkeys(["_event_key", *columns])])
        if not names:
            return wanted.empty_table().select(list(columns))

        def among(paths: Sequence[str], columns: Sequence[str]) -> pa.Table:
            rows = files_dataset(table, paths, wanted)
            return rows.to_table(columns=list(columns), filter=pc.field("_event_key").isin(pa.array(keys)))

        # Most files hold none of the keys: one narrow column tells.
        hits = set(among(names, ["__filename"]).column("__filename").unique().to_pylist())
        paths = [name for name in names if unquote(name) in hits]
        # In one chunk: Spark 4.2 stops reading an Arrow table at its first empty one, and a row group without a match is one.
        return among(paths, columns).combine_chunks() if paths else wanted.empty_table().select(list(columns))

    def _newest(self) -> DeltaTable:
        if self._table is None:
            self._table = existing_table(absolute(self.path))
        else:
            self._table.update_incremental()
        return self._table


def _may_hold(adds: pa.Table, places: Places) -> Flags:
    """Which files can hold rows of `places`, by their statistics; one without statistics can."""
    times = _bounds(adds, "_kafka_timestamp_ms")
    older = _bounds(adds, "_kafka_timestamp")
    # A file of an older version has the instant alone. Its statistics are cut to milliseconds: one more on both sides.
    first = np.where(times.known, times.first, older.first // 1000 - 1)
    last = np.where(times.known, times.last, older.last // 1000 + 1)
    days = _bounds(adds, "_event_date")
    result = _holds_any(units_of(first).astype(np.int64), units_of(last).astype(np.int64), places.units)
    result |= _holds_any(days.first, days.last, places.days)
    for low, high in places.spans:
        result |= (first <= high) & (last >= low)
    unknown: Flags = ~((times.known | older.known) & days.known)
    return result | unknown


@dataclass(frozen=True)
class _Bounds:
    """Least and largest value of a column in each file, 0 where they are not `known`."""

    first: Longs
    last: Longs
    known: Flags


def _bounds(adds: pa.Table, name: str) -> _Bounds:
    """The statistics of a column of dates (days), times (microseconds) or numbers; unknown where a row has NULL."""
    columns = [f"min.{name}", f"max.{name}", f"null_count.{name}"]
    if not set(columns) <= set(adds.column_names):
        nothing = np.zeros(adds.num_rows, dtype=np.int64)
        return _Bounds(nothing, nothing, nothing > 0)
    least, largest, nulls = (adds.column(column) for column in columns)
    kind = pa.int32() if pa.types.is_date32(least.type) else pa.int64()
    first, last = (bound.cast(kind).fill_null(0).to_numpy().astype(np.int64) for bound in (least, largest))
    known = least.is_valid().to_numpy() & largest.is_valid().to_numpy() & (nulls.fill_null(1).to_numpy() == 0)
    return _Bounds(first, last, known)


def _holds_any(first: Longs, last: Longs, values: npt.NDArray[np.int64]) -> Flags:
    """For each range [first, last] whether one of `values` lies in it."""
    if not len(values):
        return np.zeros(len(first), dtype=bool)
    ordered = np.sort(values)
    at = np.minimum(np.searchsorted(ordered, first), len(ordered) - 1)
    result: Flags = (ordered[at] >= first) & (ordered[at] <= last)
    return result
