"""Reads a Delta table's rows without Spark where Kafka's own times stand in them: those may lie beyond Python's calendar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from pipelines.lake.delta_log.opening import require_plain
from pipelines.lake.storage.arrow_storage import table_storage

PARQUET = ds.ParquetFileFormat(read_options=ds.ParquetReadOptions(coerce_int96_timestamp_unit="us"))
"""Files of an older version have times as INT96, which Arrow takes for nanoseconds: those end in 2262, and begin in 1677."""


def rows_dataset(
    table: DeltaTable, bounds: Mapping[str, tuple[Any, Any]] | None = None, schema: pa.Schema | None = None
) -> ds.Dataset:
    """The rows of the files that may hold values within `bounds` (by column, both ends included), by their statistics.

    Not by deltalake's own dataset: that reads every file's statistics as Python's dates, and one record with a time after
    the year 9999, which Kafka takes, would make the whole table unreadable. Raises UnknownFeatureError for tables whose rows
    are not those of their files (see `opening.require_plain`).
    """
    adds = pa.table(table.get_add_actions(flatten=True))
    return files_dataset(table, adds.filter(_may_hold(adds, bounds or {})).column("path").to_pylist(), schema)


def files_dataset(table: DeltaTable, paths: Iterable[str], schema: pa.Schema | None = None) -> ds.Dataset:
    """The rows of the data files `paths`, as the table's log names them; `schema`: of the table unless given.

    A file that is not there is an OSError when it is read, not before. Raises UnknownFeatureError as `rows_dataset`.
    """
    require_plain(table)
    return ds.FileSystemDataset.from_paths(
        [unquote(path) for path in paths],
        schema=schema or pa.schema(table.schema().to_arrow()),
        format=PARQUET,
        filesystem=table_storage(table),
    )


def _may_hold(adds: pa.Table, bounds: Mapping[str, tuple[Any, Any]]) -> pa.Array:
    keep = pa.array([True] * adds.num_rows, pa.bool_())
    for name, (first, last) in bounds.items():
        if f"min.{name}" in adds.column_names and f"max.{name}" in adds.column_names:
            before, after = pc.less(adds[f"max.{name}"], first), pc.greater(adds[f"min.{name}"], last)
            keep = pc.and_(keep, pc.invert(pc.fill_null(pc.or_kleene(before, after), fill_value=False)))
    return keep


def to_values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python values; a date or time that Python cannot hold as a text that says how far from 1970 it is."""
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        return [_value(cell) for cell in column]
    return values


def to_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """A table as Python rows, with `to_values`."""
    columns = [to_values(column) for column in rows.columns]
    return [dict(zip(rows.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _value(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except (OverflowError, ValueError):
        unit = "days" if pa.types.is_date32(cell.type) else cell.type.unit
        return f"{cell.value} {unit} since 1970"
