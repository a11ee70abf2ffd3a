"""Latency is read from the table's log: a row counts once, with the version that first held it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from benchmarks.live import read_arrivals, slope_per_minute

SECOND = 1_000_000
START = 1_800_000_000


def _rows(offsets: list[int]) -> pa.Table:
    times = [datetime.fromtimestamp(START + offset, UTC) for offset in offsets]
    return pa.table(
        {
            "_kafka_timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
            "_kafka_partition": pa.array([0] * len(offsets), pa.int32()),
            "_kafka_offset": pa.array(offsets, pa.int64()),
        }
    )


def _set_commit_time(table: Path, version: int, seconds: float) -> None:
    os.utime(table / "_delta_log" / f"{version:020d}.json", (seconds, seconds))


def test_row_counts_with_the_first_version_that_holds_it(tmp_path: Path) -> None:
    write_deltalake(tmp_path, _rows([0, 1]))
    write_deltalake(tmp_path, _rows([2]), mode="append")
    write_deltalake(tmp_path, _rows([0, 1, 2]), mode="overwrite")
    for version, seconds in enumerate((3.0, 4.5, 60.0)):
        _set_commit_time(tmp_path, version, START + seconds)

    arrivals = read_arrivals(tmp_path)

    delays = sorted((arrivals[:, 1] - arrivals[:, 0]).round(3).tolist())
    assert delays == [2.0, 2.5, 3.0]


def test_table_without_rows_has_no_arrivals(tmp_path: Path) -> None:
    write_deltalake(tmp_path, _rows([]))

    assert read_arrivals(tmp_path).shape == (0, 2)


def test_growing_lag_has_a_slope_and_steady_lag_has_none() -> None:
    sent = np.arange(0, 120, 0.1)

    steady = np.column_stack((sent, sent + 2.0))
    growing = np.column_stack((sent, sent + 2.0 + sent / 60))

    assert abs(slope_per_minute(steady)) < 1e-6
    assert abs(slope_per_minute(growing) - 1.0) < 0.01
