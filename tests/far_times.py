"""Records of times that Kafka takes and Python's calendar has not: who says microseconds for milliseconds sends such."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

LAST_KAFKA_US = 9_223_372_036_854_775_000
"""The latest time that a Kafka timestamp can name."""
FAR_TIMES = [(254_402_300_800_000_000, "+10031-09-09"), (LAST_KAFKA_US, "+294247-01-10")]
"""Microseconds since 1970, and their day as Spark writes it into a file's statistics."""


def add_far_record(path: str, row: Mapping[str, Any], microseconds: int, day: str, date_column: str) -> None:
    """Add `row` at that Kafka time to the Delta table, in a file with statistics as Spark writes them: deltalake writes none."""
    delta = DeltaTable(path)
    table = pa.Table.from_pylist([{**row, "_kafka_timestamp": 0, date_column: 0}], pa.schema(delta.schema().to_arrow()))
    for name, value in (("_kafka_timestamp", microseconds), (date_column, microseconds // 86_400_000_000)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array([value], table.schema.field(at).type))
    file = Path(path) / "late.parquet"
    pq.write_table(table, file)
    bounds = {"_kafka_partition": row["_kafka_partition"], "_kafka_offset": row["_kafka_offset"]}
    bounds |= {"_kafka_timestamp": f"{day}T00:00:00.000Z", date_column: day}
    stats = {"numRecords": 1, "minValues": bounds, "maxValues": bounds, "nullCount": dict.fromkeys(bounds, 0)}
    add = {"path": file.name, "partitionValues": {}, "size": file.stat().st_size, "modificationTime": 1, "dataChange": True}
    commit = Path(path) / "_delta_log" / f"{delta.version() + 1:020}.json"
    commit.write_text(json.dumps({"add": {**add, "stats": json.dumps(stats)}}) + "\n")
