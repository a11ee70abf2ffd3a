"""Gives the Arrow schema of a table's definition, for what is written and read without Spark."""

from __future__ import annotations

import re
from collections.abc import Collection

import pyarrow as pa

from pipelines.lake.tables import TableDef

_SIMPLE = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "binary": pa.binary(),
}
_ARRAY = re.compile(r"array<(.+)>")
_STRUCT = re.compile(r"struct<(.+)>")


def arrow_schema(table: TableDef, *, without: Collection[str] = ()) -> pa.Schema:
    """Columns of the table in its order; `without`: columns that are left out, such as those of a later version.

    Raises KeyError for a Spark type that no table has yet.
    """
    return pa.schema(
        [
            pa.field(column.name, arrow_type(column.type), nullable=column.nullable)
            for column in table.columns
            if column.name not in without
        ]
    )


def arrow_type(spark_type: str) -> pa.DataType:
    """The Arrow type of a Spark type as tables are defined with it; structs hold simple types."""
    if found := _ARRAY.fullmatch(spark_type):
        return pa.list_(arrow_type(found[1]))
    if found := _STRUCT.fullmatch(spark_type):
        return pa.struct([pa.field(name, _SIMPLE[kind]) for name, kind in (part.split(":") for part in found[1].split(","))])
    return _SIMPLE[spark_type]
