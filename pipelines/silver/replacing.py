"""Earlier copies, and records that read differently now, take the place of rows of Silver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from typing import Any

import deltalake
from delta.tables import DeltaTable
from deltalake import CommitProperties, WriterProperties
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.lake.contract.facts import open_writable
from pipelines.runtime import delta
from pipelines.silver.dedup.lookup import kafka_moment
from pipelines.silver.facts import Facts

FEW = 1000
"""So many rows are merged in this process: live it is one row in ten batches, for which Spark's MERGE takes some seconds."""
_ORDER = ("_kafka_timestamp_ms", "_kafka_partition", "_kafka_offset")

_KAFKA_MS_HERE = "coalesce(t._kafka_timestamp_ms, cast(t._kafka_timestamp AS bigint) / 1000)"
"""Kafka's number of a row; those that an older version wrote have the instant alone, here as microseconds."""


def replace_rows(spark: SparkSession, path: str, rows: DataFrame, replaced: Facts, metadata: Mapping[str, Any]) -> int:
    """Put `rows` in the place of the rows `replaced` of Silver at `path`; return the version.

    Idempotent: a row that is earlier than its copy stays. `metadata` goes into the commit, as that of an append.
    """
    if len(replaced) <= FEW and (table := open_writable(path)) is not None:
        return _merge_here(table, rows, replaced, metadata)
    _merge_by_spark(spark, path, rows, replaced, metadata)
    return delta.last_version(spark, path)


def _merge_here(table: deltalake.DeltaTable, rows: DataFrame, replaced: Facts, metadata: Mapping[str, Any]) -> int:
    name, low, high = _bounds(replaced)
    within = f"t.{name} >= {_literal(low)} AND t.{name} <= {_literal(high)}"
    not_earlier = "true"
    for name in reversed(_ORDER):
        row = _KAFKA_MS_HERE if name == "_kafka_timestamp_ms" else f"t.{name}"
        not_earlier = f"({row} > s.{name} OR ({row} = s.{name} AND {not_earlier}))"
    (
        table.merge(
            rows.toArrow(),
            f"{within} AND t._event_key = s._event_key AND t.event_id = s.event_id",
            source_alias="s",
            target_alias="t",
            writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
            commit_properties=CommitProperties(custom_metadata={"userMetadata": json.dumps(dict(metadata))}),
        )
        .when_matched_update({name: f"s.{name}" for name in rows.columns}, predicate=not_earlier)
        .execute()
    )
    return table.version()


def _bounds(replaced: Facts) -> tuple[str, datetime | int, datetime | int]:
    """A column and its least and largest value in these rows: with literal bounds a MERGE opens their files, not all."""
    if replaced.has_kafka_time().all():
        low, high = int(replaced.kafka_ms.min()), int(replaced.kafka_ms.max())
        # A whole millisecond at the end: a row may have microseconds.
        return "_kafka_timestamp", kafka_moment(low), kafka_moment(high + 1)
    return "_kafka_offset", int(replaced.offset.min()), int(replaced.offset.max())


def _literal(bound: datetime | int) -> str:
    return f"'{bound.isoformat()}'" if isinstance(bound, datetime) else str(bound)


def _merge_by_spark(spark: SparkSession, path: str, rows: DataFrame, replaced: Facts, metadata: Mapping[str, Any]) -> None:
    def or_later(tail: Column, name: str) -> Column:
        row = F.col(f"t.{name}")
        if name == "_kafka_timestamp_ms":
            # Rows that an older version wrote have the instant alone.
            row = F.coalesce(row, F.unix_millis("t._kafka_timestamp"))
        return (row > F.col(f"s.{name}")) | ((row == F.col(f"s.{name}")) & tail)

    name, low, high = _bounds(replaced)
    # At the end true: the record itself. Only one that was found to differ is among the rows.
    not_earlier = reduce(or_later, reversed(_ORDER), F.lit(True))
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(
            rows.alias("s"),
            F.col(f"t.{name}").between(low, high)
            & (F.col("t._event_key") == F.col("s._event_key"))
            & (F.col("t.event_id") == F.col("s.event_id")),
        )
        # By name, not all: a column that somebody added to the table is theirs.
        .whenMatchedUpdate(condition=not_earlier, set={name: F.col(f"s.{name}") for name in rows.columns})
    )
    with delta.commits_say(spark, metadata):
        merge.execute()
