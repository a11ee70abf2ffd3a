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

from pipelines.common import files
from pipelines.common.opening import existing_table
from pipelines.common.plain_read import files_dataset
from pipelines.silver.fates import Flags, Longs

_SECOND = 1_000_000
_STATS = ("_kafka_timestamp", "_event_date")


@dataclass(frozen=True)
class Places:
    """Where rows may lie; a file that can hold any of it is opened.

    `seconds`: Kafka seconds, `days`: days of event_timestamp since the epoch, `spans`: ranges of Kafka seconds, inclusive.
    """

    seconds: Longs
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
            self._table = existing_table(files.absolute(self.path))
        else:
            self._table.update_incremental()
        return self._table


def _may_hold(adds: pa.Table, places: Places) -> Flags:
    """Which files can hold rows of `places`, by their statistics; one without statistics can."""
    missing = [f"{end}.{name}" for name in _STATS for end in ("min", "max") if f"{end}.{name}" not in adds.column_names]
    if missing:
        return np.ones(adds.num_rows, dtype=bool)
    # Statistics of times are cut to milliseconds: a second more on both sides.
    first, last = _whole(adds, "min._kafka_timestamp", _SECOND) - 1, _whole(adds, "max._kafka_timestamp", _SECOND) + 1
    result = _holds_any(first, last, places.seconds)
    result |= _holds_any(_whole(adds, "min._event_date", 1), _whole(adds, "max._event_date", 1), places.days)
    for low, high in places.spans:
        result |= (first <= high) & (last >= low)
    nulls = [adds.column(f"{end}.{name}").is_null().to_numpy() for name in _STATS for end in ("min", "max")]
    unknown: Flags = np.logical_or.reduce(nulls)
    return result | unknown


def _whole(adds: pa.Table, name: str, unit: int) -> Longs:
    """A column of dates (days) or times (microseconds) in whole `unit`s; 0 where there is none."""
    column = adds.column(name)
    kind = pa.int32() if pa.types.is_date32(column.type) else pa.int64()
    numbers: Longs = column.cast(kind).fill_null(0).to_numpy().astype(np.int64)
    return numbers // unit


def _holds_any(first: Longs, last: Longs, values: npt.NDArray[np.int64]) -> Flags:
    """For each range [first, last] whether one of `values` lies in it."""
    if not len(values):
        return np.zeros(len(first), dtype=bool)
    ordered = np.sort(values)
    at = np.minimum(np.searchsorted(ordered, first), len(ordered) - 1)
    result: Flags = (ordered[at] >= first) & (ordered[at] <= last)
    return result
