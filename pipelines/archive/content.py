"""What Bronze rows hold, in a few numbers that do not depend on their order: by these a copy is compared with its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.lake.errors import LakehouseError

Longs = npt.NDArray[np.int64]
KAFKA_MS = "_kafka_timestamp_ms"
COORDINATES = ("_kafka_topic", "_kafka_partition", "_kafka_offset")
_OFFSET_BITS = 48
_HEADERS = (
    "CASE WHEN _kafka_headers IS NULL THEN '-' ELSE len(_kafka_headers) || '[' || array_to_string("
    "[coalesce(md5(h.key), '-') || ':' || coalesce(md5(h.value), '-') for h in _kafka_headers], ',') || ']' END"
)
ROW_TEXT = " || '|' || ".join(
    (
        "_kafka_topic",
        "_kafka_partition",
        "_kafka_offset",
        "coalesce(epoch_us(_kafka_timestamp)::VARCHAR, '-')",
        "coalesce(_kafka_timestamp_type::VARCHAR, '-')",
        "coalesce(md5(_kafka_key), '-')",
        _HEADERS,
        "coalesce(md5(_raw_value), '-')",
        "coalesce(_raw_size::VARCHAR, '-')",
        "coalesce(epoch_us(_ingested_at)::VARCHAR, '-')",
        "coalesce(strftime(_event_date, '%Y-%m-%d'), '-')",
    )
)
ROW_TEXT += f" || coalesce('|' || {KAFKA_MS}, '')"
"""A row as text: every column, bytes by their MD5, so that the digest can be computed anew in years by any tool.

The last column is one that older rows do not have: their text, and so their digest, is the one of before.
"""
_FIGURES = f"""
    SELECT _kafka_topic, _kafka_partition, count(*), min(_kafka_offset), max(_kafka_offset), coalesce(sum(_raw_size), 0),
        sum(md5_number_lower({ROW_TEXT})::HUGEINT)
    FROM rows GROUP BY ALL ORDER BY ALL"""  # noqa: S608 - constants of this module


@dataclass(frozen=True)
class Part:
    """Rows of one partition: how many, their first and last offset, bytes of their values, and a digest of them all.

    `content` is the sum, over the rows, of the lower 64 bits of the MD5 of `ROW_TEXT`.
    """

    topic: str
    partition: int
    rows: int
    first_offset: int
    last_offset: int
    value_bytes: int
    content: str


Figures = tuple[Part, ...]


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB database in memory that spills to a temporary folder beyond 2 GB."""
    with TemporaryDirectory(prefix="lakehouse-archive-") as folder, duckdb.connect() as db:
        for setting in ("memory_limit = '2GB'", f"temp_directory = '{folder}'", "preserve_insertion_order = false"):
            db.execute(f"SET {setting}")
        db.execute("SET TimeZone = 'UTC'")
        yield db


def figures(rows: pa.RecordBatchReader) -> Figures:
    """Compute what `rows` (Bronze's columns) hold, for each topic and partition; the reader is used up."""
    return tuple(
        Part(topic, partition, count, first, last, size, f"{content:x}")
        for topic, partition, count, first, last, size, content in query(_FIGURES, _with_kafka_ms(rows))
    )


def _with_kafka_ms(rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    if KAFKA_MS in rows.schema.names:
        return rows
    schema = rows.schema.append(pa.field(KAFKA_MS, pa.int64()))
    filled = (pa.RecordBatch.from_arrays([*batch.columns, pa.nulls(batch.num_rows, pa.int64())], schema=schema) for batch in rows)
    return pa.RecordBatchReader.from_batches(schema, filled)


def islands(rows: pa.RecordBatchReader) -> list[tuple[str, int, int, int]]:
    """Find the runs of offsets without a hole: topic, partition, first and last offset; the reader is used up."""
    return [
        (row[0], row[1], row[2], row[3])
        for row in query(
            """
            SELECT _kafka_topic, _kafka_partition, min(_kafka_offset), max(_kafka_offset) FROM (
                SELECT *, _kafka_offset - row_number() OVER (PARTITION BY _kafka_topic, _kafka_partition ORDER BY _kafka_offset)
                    AS island
                FROM (SELECT DISTINCT _kafka_topic, _kafka_partition, _kafka_offset FROM rows))
            GROUP BY _kafka_topic, _kafka_partition, island ORDER BY ALL""",
            rows,
        )
    ]


def query(sql: str, rows: pa.RecordBatchReader) -> list[tuple[Any, ...]]:
    """Run `sql` over the table `rows`; raises LakehouseError where they cannot be read."""
    with database() as db:
        db.register("rows", rows)
        try:
            return db.execute(sql).fetchall()
        except duckdb.Error as error:
            msg = (
                f"Rows of Bronze or of its archive cannot be read ({str(error).splitlines()[0][:200]}); see "
                "playbooks/bronze-archive.md and playbooks/bronze-corruption.md."
            )
            raise LakehouseError(msg) from None


def read(dataset: ds.Dataset, days: Sequence[date] | None = None, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
    """Read the rows of `days` (None: all) in batches."""
    wanted = None if days is None else pc.field("_event_date").isin(pa.array(sorted(days), pa.date32()))
    # Arrow's default reads 16 batches of 4 files ahead: gigabytes of raw values.
    scanner = dataset.scanner(
        columns=None if columns is None else list(columns),
        filter=wanted,
        batch_size=32_768,
        batch_readahead=4,
        fragment_readahead=2,
    )
    return scanner.to_reader()


def coordinates(rows: pa.RecordBatchReader) -> Longs:
    """Give partition and offset of each row, packed into one number, sorted; the reader is used up."""
    parts = [_packed(batch) for batch in rows]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)


def among(rows: pa.RecordBatchReader, known: Longs, *, keep: bool) -> pa.RecordBatchReader:
    """Keep (or drop) the rows whose coordinates are among the sorted `known`."""

    def chosen() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            packed = _packed(batch)
            at = np.minimum(np.searchsorted(known, packed), max(len(known) - 1, 0))
            found = known[at] == packed if len(known) else np.zeros(len(packed), dtype=bool)
            yield batch.filter(pa.array(found if keep else ~found))

    return pa.RecordBatchReader.from_batches(rows.schema, chosen())


def pack(partition: int, offset: int) -> int:
    """Partition and offset as one number, as `coordinates` has it."""
    return partition << _OFFSET_BITS | offset


def _packed(batch: pa.RecordBatch) -> Longs:
    partitions, offsets = (batch.column(name).to_numpy(zero_copy_only=False) for name in COORDINATES[1:])
    packed: Longs = (partitions.astype(np.int64) << _OFFSET_BITS) | offsets.astype(np.int64)
    return packed
