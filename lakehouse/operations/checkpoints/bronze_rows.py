"""Which Kafka offsets Bronze's rows have: statistics where they are exact, otherwise two columns of the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pipelines.lake.delta_log.file_facts import file_facts
from pipelines.lake.delta_log.opening import require_plain
from pipelines.lake.ledger.ranges import Ranges
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.storage.arrow_storage import table_storage
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.storage.protocol import READERS

Offsets = npt.NDArray[np.int64]

_KEY, _OFFSET = "_kafka_partition", "_kafka_offset"
_STATS = ["modification_time", f"min.{_KEY}", f"max.{_KEY}", f"min.{_OFFSET}", f"max.{_OFFSET}"]


class BronzeRows:
    """The coordinates of the rows in Bronze, as its log was when this was made."""

    def __init__(self, table: DeltaTable) -> None:
        require_plain(table)
        self._storage = table_storage(table)
        files = file_facts(table, ("path", *_STATS)).to_pylist()
        self._files: list[dict[str, Any]] = [{**dict.fromkeys(_STATS), **file} for file in files]

    def ends(self, ledger: Iterable[LedgerRow]) -> dict[int, int]:
        """Give for each partition that has rows the offset after the highest one.

        Files of several partitions have to be read: the newest first, until all that the ledger says was written has been
        found. Each end is that of a row: too low where the ledger lacks a batch, never too high.
        """
        ends: dict[int, int] = {}
        mixed = []
        for file in self._files:
            partition, last = file[f"max.{_KEY}"], file[f"max.{_OFFSET}"]
            if partition is not None and partition == file[f"min.{_KEY}"] and last is not None:
                _lift(ends, {partition: last + 1})
            else:
                mixed.append(file)
        claimed: dict[int, int] = {}
        for row in ledger:
            _lift(claimed, {partition: stop for partition, (_, stop) in row.spans.items()})
        mixed.sort(key=lambda file: file["modification_time"] or 0, reverse=True)
        with ThreadPoolExecutor(READERS) as pool:
            for first in range(0, len(mixed), READERS):
                if first and claimed and all(ends.get(partition, 0) >= end for partition, end in claimed.items()):
                    break
                for partitions, offsets in pool.map(self._read, mixed[first : first + READERS]):
                    _lift(ends, {int(one): int(offsets[partitions == one].max()) + 1 for one in np.unique(partitions)})
        return dict(sorted(ends.items()))

    def offsets_in(self, ranges: Ranges) -> dict[int, Offsets]:
        """Give the offsets of the rows that lie in `ranges`, sorted; only files that may hold some are read."""
        spans = [span for found in ranges.values() for span in found]
        if not spans:
            return {}
        low, high = min(start for start, _ in spans), max(stop for _, stop in spans)
        files = [file for file in self._files if _may_hold(file, low, high)]
        found: dict[int, list[Offsets]] = {}
        with ThreadPoolExecutor(READERS) as pool:
            for partitions, offsets in pool.map(self._read, files):
                for partition, wanted in ranges.items():
                    found.setdefault(partition, []).append(_within(offsets[partitions == partition], wanted))
        return {partition: np.sort(np.concatenate(parts)) for partition, parts in found.items()}

    def _read(self, file: Mapping[str, Any]) -> tuple[Offsets, Offsets]:
        with told_apart(file["path"]), self._storage.open_input_file(file["path"]) as stream:
            rows = pq.ParquetFile(stream).read(columns=[_KEY, _OFFSET], use_threads=False)
        return rows[_KEY].to_numpy(), rows[_OFFSET].to_numpy()


def _lift(ends: dict[int, int], found: Mapping[int, int]) -> None:
    for partition, end in found.items():
        ends[partition] = max(end, ends.get(partition, 0))


def _may_hold(file: Mapping[str, Any], low: int, high: int) -> bool:
    first, last = file[f"min.{_OFFSET}"], file[f"max.{_OFFSET}"]
    return (last is None or last >= low) and (first is None or first < high)


def _within(offsets: Offsets, ranges: list[tuple[int, int]]) -> Offsets:
    starts, stops = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    at = np.searchsorted(starts, offsets, side="right") - 1
    inside: Offsets = offsets[(at >= 0) & (offsets < stops[at])]
    return inside
