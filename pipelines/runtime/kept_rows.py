"""Rows that several queries of one batch read, computed once: see KeptRows.java."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import DataFrame


@contextmanager
def kept(frame: DataFrame) -> Iterator[DataFrame]:
    """Give the rows of `frame`, held in the executors (on their disks where memory is short) until the block ends."""
    spark: Any = frame.sparkSession
    rows = spark._jvm.io.usagelakehouse.KeptRows(frame._jdf)
    try:
        yield DataFrame(rows.frame(), spark)
    finally:
        rows.release()
