"""Delta tables: creation, idempotent append, versions and transaction ids."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from pipelines.lake.contract.contract import COMMON_PROPERTIES
from pipelines.lake.delta_log.marks import MARK
from pipelines.lake.delta_log.opening import has_table
from pipelines.lake.errors import UsageError
from pipelines.lake.places import absolute, is_local
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import is_empty
from pipelines.lake.tables import ALL_TABLES, Column, TableDef, TableName
from pipelines.lake.views import ALL_VIEWS

_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


def is_delta_table(spark: SparkSession, path: str) -> bool:
    """Tell whether a Delta table lies at `path`; raises UnreadableError where nobody can tell, DamagedError as `open_table`."""
    if bool(DeltaTable.isDeltaTable(spark, path)):
        return True
    # Spark calls absent what this user may not see, and a table would be made on top.
    return is_local(path) and has_table(absolute(path))


def require_table(spark: SparkSession, path: str, what: str) -> None:
    """Raise UsageError where no Delta table lies at `path`."""
    if not is_delta_table(spark, path):
        msg = f"No Delta table lies at {path}, expected {what}; correct the path or run the job that writes it first."
        raise UsageError(msg)


def ensure_table(spark: SparkSession, table: TableDef, path: str, properties: Mapping[str, str] | None = None) -> None:
    """Create `table` at `path` unless it is there.

    Raises UsageError where other files lie at `path`.
    """
    if is_delta_table(spark, path):
        return
    if not is_empty(open_storage(path)):
        msg = f"The folder {path} holds files but no Delta table, expected {table.name} or nothing; choose another path."
        raise UsageError(msg)
    builder = DeltaTable.createIfNotExists(spark).location(absolute(path)).comment(table.comment)
    for column in table.columns:
        builder = builder.addColumn(column.name, column.type, nullable=column.nullable, comment=column.doc)
    for key, value in {**COMMON_PROPERTIES, **table.properties, **(properties or {})}.items():
        builder = builder.property(key, value)
    builder.execute()


def is_complete(spark: SparkSession, table: TableDef, path: str) -> bool:
    """Tell whether a Delta table with all columns of `table` lies at `path`."""
    return is_delta_table(spark, path) and not _missing(spark, table, path)


def _missing(spark: SparkSession, table: TableDef, path: str) -> list[Column]:
    present = set(spark.read.format("delta").load(path).columns)
    return [column for column in table.columns if column.name not in present]


def ensure_columns(spark: SparkSession, table: TableDef, path: str) -> None:
    """Add the columns that `table` has and the table at `path` does not: an additive change of the event schema."""
    missing = _missing(spark, table, path)
    if missing:
        columns = ", ".join(f"`{column.name}` {column.type}" for column in missing)
        spark.sql(f"ALTER TABLE delta.`{absolute(path)}` ADD COLUMNS ({columns})")


def ensure_properties(spark: SparkSession, path: str, wanted: Mapping[str, str]) -> dict[str, str | None]:
    """Set the properties of `wanted` that the table at `path` has otherwise; return what these were (None: not set).

    For properties whose change alters no row and stops no reader, such as the columns that have statistics. Nothing is committed
    where all are as wanted. The caller holds the lease of the table's layer, as for any commit.
    """
    found = _updated(spark, path).metadata().configuration()
    before = {key: str(found.get(key).get()) if found.contains(key) else None for key in wanted}
    differing = {key: value for key, value in before.items() if value != wanted[key]}
    if differing:
        pairs = ", ".join(f"'{key}' = '{wanted[key]}'" for key in differing)
        with commits_are_ours(spark, "properties"):
            spark.sql(f"ALTER TABLE delta.`{absolute(path)}` SET TBLPROPERTIES ({pairs})")
    return differing


def register_tables(spark: SparkSession, settings: Settings) -> list[TableName]:
    """Make the lake's existing tables, and views of them, known to SQL as `layer.table`; return the tables that exist."""
    found = []
    for name in ALL_TABLES:
        path = name.path(settings)
        if not is_delta_table(spark, path):
            continue
        location = absolute(path)
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {name.layer}")
        if not spark.catalog.tableExists(str(name)):
            spark.sql(f"CREATE TABLE {name} USING DELTA LOCATION '{location}'")
        found.append(name)
    for view in ALL_VIEWS:
        if all(table in found for table in view.reads.values()):
            spark.sql(f"CREATE OR REPLACE VIEW {view.name} AS {view.sql}")
    return found


def append(frame: DataFrame, path: str, *, app_id: str, batch_id: int, metadata: Mapping[str, Any]) -> int:
    """Append `frame` once for (`app_id`, `batch_id`) and return the table's version, also where it had the batch before.

    For rows that are the same whenever the batch runs; see `append_new` for those that are not.
    """
    version = append_new(frame, path, app_id=app_id, batch_id=batch_id, metadata=metadata)
    return last_version(frame.sparkSession, path) if version is None else version


def append_new(frame: DataFrame, path: str, *, app_id: str, batch_id: int, metadata: Mapping[str, Any]) -> int | None:
    """Append `frame` once for (`app_id`, `batch_id`) and return the version; None where the table had it, or a later batch.

    Guarantee: a second call with the same ids writes nothing (Delta's transaction identifiers, see DeltaAppend.java).
    The app id has to carry the checkpoint's identity: a new checkpoint counts batches from 0 again, and its writes would
    be skipped. `metadata` goes into the commit (`userMetadata`), so that a restart knows what the batch did.
    """
    jvm: Any = frame.sparkSession._jvm
    version = int(jvm.io.usagelakehouse.DeltaAppend.append(frame._jdf, path, app_id, batch_id, json.dumps(metadata)))
    return None if version < 0 else version


def advance(
    frame: DataFrame,
    path: str,
    *,
    app_id: str,
    expected: int | None,
    to: int,
    metadata: Mapping[str, Any],
    replaced: str | None = None,
) -> int | None:
    """Write `frame` and move the position that `app_id` holds from `expected` (None: it holds none) to `to`, in one commit.

    `replaced`: a condition, as SQL; the rows take the place of all that meet it (default: they are added). Returns the version;
    None where the position is another one by now, and nothing was written. A rival that moves it meanwhile fails the commit.
    """
    jvm: Any = frame.sparkSession._jvm
    before = -1 if expected is None else expected
    version = int(
        jvm.io.usagelakehouse.DeltaAppend.advance(frame._jdf, path, replaced, app_id, before, to, json.dumps(dict(metadata)))
    )
    return None if version < 0 else version


@contextmanager
def commits_say(spark: SparkSession, metadata: Mapping[str, Any]) -> Iterator[None]:
    """Let commits of operations that take no option, such as MERGE, carry `metadata` (`userMetadata`) within the block."""
    spark.conf.set(_USER_METADATA, json.dumps(metadata))
    try:
        yield
    finally:
        spark.conf.unset(_USER_METADATA)


@contextmanager
def commits_are_ours(spark: SparkSession, writer: str) -> Iterator[None]:
    """Mark the commits of the block as the project's own, made by `writer`: the doctor names those that nobody marked."""
    with commits_say(spark, {MARK: writer}):
        yield


def last_version(spark: SparkSession, path: str) -> int:
    """Version of the table as this driver last saw it; at least that of its own last commit."""
    return int(_delta_log(spark, path).unsafeVolatileSnapshot().version())


def current_version(spark: SparkSession, path: str) -> int:
    """Version of the table now, other writers' commits included."""
    return int(_updated(spark, path).version())


def table_id(spark: SparkSession, path: str) -> str:
    """Id that Delta gave the table when it was made."""
    return str(_delta_log(spark, path).unsafeVolatileSnapshot().metadata().id())


def table_property(spark: SparkSession, path: str, key: str) -> str | None:
    """A property of the table, None where it is not set."""
    found = _updated(spark, path).metadata().configuration().get(key)
    return str(found.get()) if found.isDefined() else None


def transaction_version(spark: SparkSession, path: str, app_id: str) -> int | None:
    """Last batch that `app_id` committed to the table, None where it never did."""
    found = _updated(spark, path).transactions().get(app_id)
    return int(found.get()) if found.isDefined() else None


def _delta_log(spark: SparkSession, path: str) -> Any:
    jvm: Any = spark._jvm
    return jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)


def _updated(spark: SparkSession, path: str) -> Any:
    log = _delta_log(spark, path)
    none = spark._jvm.scala.Option.empty()  # type: ignore[union-attr]
    return log.update(False, none, none)
