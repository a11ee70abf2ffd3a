"""Parquet files of Bronze rows on a file system that Arrow knows: written to be there after a power cut, and hashed."""

from __future__ import annotations

import hashlib
import os
import uuid
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from pipelines.lake.delta_log.plain_read import PARQUET

_BYTES_PER_FILE = 512 * 1024 * 1024
"""Of uncompressed rows."""
_REPEATING = ["_kafka_topic", "_kafka_partition", "_kafka_timestamp_type", "_raw_size", "_ingested_at", "_event_date"]
"""Columns that gain from a dictionary; the others' values hardly repeat."""
_CHUNK = 4 * 1024 * 1024


def write_files(
    system: pa_fs.FileSystem, folder: str, rows: pa.RecordBatchReader, *, level: int, begins: str = "part"
) -> list[str]:
    """Write `rows` to Parquet files in `folder` (zstd of `level`) and return their names; no rows, no file.

    What was written of them is deleted where one cannot be written.
    """
    names: list[str] = []
    batch = next(rows, None)
    try:
        while batch is not None:
            names.append(f"{begins}-{len(names):05d}-{uuid.uuid4()}.zstd.parquet")
            path, written = f"{folder}/{names[-1]}", 0
            with pq.ParquetWriter(
                path, rows.schema, filesystem=system, compression="zstd", compression_level=level, use_dictionary=_REPEATING
            ) as writer:
                while batch is not None and written < _BYTES_PER_FILE:
                    if batch.num_rows:
                        writer.write_batch(batch)
                        written += batch.nbytes
                    batch = next(rows, None)
            if not written:
                system.delete_file(path)
                return names[:-1]
            keep(system, path)
    except Exception:
        for name in names:
            with suppress(OSError):
                system.delete_file(f"{folder}/{name}")
        raise
    return names


def keep(system: pa_fs.FileSystem, path: str) -> None:
    """Wait until a file and its entry in the folder are on the disk; an object store has them once it was written."""
    if isinstance(system, pa_fs.LocalFileSystem):
        for place in (path, str(Path(path).parent)):
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def sha256(system: pa_fs.FileSystem, path: str) -> tuple[str, int]:
    """SHA-256 and size of a file, as it lies there."""
    digest, size = hashlib.sha256(), 0
    with system.open_input_stream(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def dataset(system: pa_fs.FileSystem, paths: list[str], schema: pa.Schema | None = None) -> ds.Dataset:
    """Read Parquet files together; `schema`: of the first file unless given."""
    return ds.dataset(paths, schema=schema, format=PARQUET, filesystem=system)
