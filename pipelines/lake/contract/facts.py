"""Reads from a table's log what the contract is compared with, without a JVM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deltalake import DeltaTable
from deltalake.schema import ArrayType, MapType, PrimitiveType, StructType

from pipelines.lake.contract.contract import ALLOWED_FEATURES, Difference, TableFacts, differences, differing_columns
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.opening import existing_table, has_variants, open_table, reader_features
from pipelines.lake.places import absolute, is_local, place_of
from pipelines.lake.tables import TableDef, TableName


def table_facts(table: DeltaTable) -> TableFacts:
    """Read the facts of a table that is open."""
    properties = {str(key): str(value) for key, value in table.metadata().configuration.items()}
    features = frozenset({*reader_features(table), *(table.protocol().writer_features or ())})
    columns = {one.name: _spark_type(one.type) for one in table.schema().fields}
    return TableFacts(properties, features, columns, has_variants(table))


_SPARK_NAMES = {"long": "bigint", "integer": "int", "short": "smallint", "byte": "tinyint"}


def _spark_type(kind: Any) -> str:
    if isinstance(kind, ArrayType):
        return f"array<{_spark_type(kind.element_type)}>"
    if isinstance(kind, MapType):
        return f"map<{_spark_type(kind.key_type)},{_spark_type(kind.value_type)}>"
    if isinstance(kind, StructType):
        return f"struct<{','.join(f'{one.name}:{_spark_type(one.type)}' for one in kind.fields)}>"
    name = kind.type if isinstance(kind, PrimitiveType) else "variant"
    return _SPARK_NAMES.get(name, name)


def open_writable(path: str) -> DeltaTable | None:
    """Open the table at `path` for a write by deltalake; None where Spark has to write it.

    A table feature that somebody had switched on may have left another behind, with which deltalake cannot write.
    """
    if not is_local(path):
        return None
    table = existing_table(absolute(path))
    return table if table_facts(table).features <= ALLOWED_FEATURES else None


def differences_at(name: TableName, path: str, defined: TableDef | None = None) -> list[Difference]:
    """Compare the table at `path` with its contract; a table that is not there has no difference. Raises as `open_table`."""
    table = open_table(path)
    return [] if table is None else differences_of(name, table, defined)


def differences_of(name: TableName, table: DeltaTable, defined: TableDef | None = None) -> list[Difference]:
    """Compare an open table with its contract; for columns the log is asked since when they differ."""
    found = list(differences(name, table_facts(table), defined))
    if defined is None or all(one.kind != "column" for one in found):
        return found
    sound = _sound_version(table, defined)
    return [replace(one, sound=sound) if one.kind == "column" else one for one in found]


def _sound_version(table: DeltaTable, defined: TableDef) -> int | None:
    """Newest version before the columns got other types; None where the log no longer tells."""
    path = place_of(table)
    for commit in newest_commits(path, table.version(), skip=lambda _, text: '"metaData"' not in text):
        before = open_table(path, commit.version - 1) if commit.version else None
        if before is None or not any(differing_columns(table_facts(before), defined)):
            return None if before is None else commit.version - 1
    return None
