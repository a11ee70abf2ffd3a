"""The peer's Delta tables: the same columns as the project's, written by deltalake, zstd level 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import ColumnProperties, DeltaTable, WriterProperties, write_deltalake

from pipelines.bronze.schema import TABLE as BRONZE_TABLE
from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.event_schema import EventSchemas

UTC_MICROS = pa.timestamp("us", tz="UTC")
_ARROW_TYPES = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": UTC_MICROS,
}
_HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))

_OLDER = ("_kafka_timestamp_ms",)
"""A column that the peer does not write."""
BRONZE_SCHEMA = arrow_schema(BRONZE_TABLE, without=_OLDER)
DLQ_SCHEMA = pa.schema(
    [
        ("_raw_value", pa.binary()),
        ("_kafka_key", pa.binary()),
        ("_kafka_headers", _HEADERS),
        ("_kafka_topic", pa.string()),
        ("_kafka_partition", pa.int32()),
        ("_kafka_offset", pa.int64()),
        ("_kafka_timestamp", UTC_MICROS),
        ("_quality_flags", pa.list_(pa.string())),
        ("_error_message", pa.string()),
        ("_stage", pa.string()),
        ("_dlq_date", pa.date32()),
        ("_status", pa.string()),
        ("_attempts", pa.int32()),
        ("_replay_id", pa.string()),
        ("_dead_lettered_at", UTC_MICROS),
    ]
)


def event_schema(schemas: EventSchemas) -> pa.Schema:
    """The event's own columns, as the schema files say."""
    return pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in schemas.fields.items()])


def silver_schema(schemas: EventSchemas) -> pa.Schema:
    """The event's columns and what the pipeline knows of it."""
    meta = [
        ("_is_late_arriving", pa.bool_()),
        ("_arrival_delay_seconds", pa.float64()),
        ("_event_date", pa.date32()),
        ("_quality_flags", pa.list_(pa.string())),
        ("_kafka_topic", pa.string()),
        ("_kafka_partition", pa.int32()),
        ("_kafka_offset", pa.int64()),
        ("_kafka_timestamp", UTC_MICROS),
        ("_processed_at", UTC_MICROS),
        ("_event_key", pa.int64()),
    ]
    return pa.schema([*event_schema(schemas), *meta])


class Lake:
    """The peer's tables under one folder, made empty at first."""

    def __init__(self, root: Path, schemas: EventSchemas) -> None:
        self._root = root
        self._create("bronze", BRONZE_SCHEMA)
        self._create("dlq", DLQ_SCHEMA)
        self._create("silver", silver_schema(schemas))

    def path(self, table: str) -> str:
        """Where a table lies."""
        return str(self._root / table)

    def append(self, table: str, rows: pa.Table) -> None:
        """Append in one commit."""
        write_deltalake(self.path(table), rows, mode="append", writer_properties=_PROPERTIES)

    def files(self, table: str) -> list[str]:
        """The data files of the newest version."""
        return DeltaTable(self.path(table)).file_uris()

    def merge(self, table: str, rows: pa.Table, keys: list[str], where: str = "true") -> None:
        """Update the rows that have the same keys, insert the others; a table that is not there is made.

        `where` says of the table's rows (`t`) where the same keys can lie: literals that spare files.
        """
        if not DeltaTable.is_deltatable(self.path(table)):
            self.create_from(table, rows)
            return
        same = " AND ".join([*(f"t.{key} = s.{key}" for key in keys), where])
        merger = DeltaTable(self.path(table)).merge(
            rows, predicate=same, source_alias="s", target_alias="t", writer_properties=_PROPERTIES
        )
        merger.when_matched_update_all().when_not_matched_insert_all().execute()

    def create_from(self, table: str, rows: pa.Table) -> None:
        """Make a table that holds `rows`."""
        write_deltalake(self.path(table), rows, writer_properties=_PROPERTIES)

    def _create(self, table: str, schema: pa.Schema) -> None:
        DeltaTable.create(self.path(table), schema, mode="ignore")


def _no_dictionary() -> Any:
    # Unique values gain nothing from a dictionary that overflows; the project's own writer does without it too.
    return ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")


_PROPERTIES = WriterProperties(
    compression="ZSTD",
    compression_level=1,
    column_properties={
        "_raw_value": _no_dictionary(),
        "event_id": _no_dictionary(),
        "_kafka_offset": ColumnProperties(dictionary_enabled=False),
    },
)
