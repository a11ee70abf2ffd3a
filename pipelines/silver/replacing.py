"""Earlier copies, and records that read differently now, take the place of rows of Silver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from typing import Any

from delta.tables import DeltaTable
from deltalake import CommitProperties, WriterProperties
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.common import delta, files
from pipelines.common.opening import existing_table
from pipelines.silver.fates import Facts
from pipelines.silver.lookup import kafka_between, kafka_moment

FEW = 1000
"""So many rows are merged in this process: live it is one row in ten batches, for which Spark's MERGE takes some seconds."""
_ORDER = ("_kafka_timestamp", "_kafka_partition", "_kafka_offset")


def replace_rows(spark: SparkSession, path: str, rows: DataFrame, replaced: Facts, metadata: Mapping[str, Any]) -> int:
    """Put `rows` in the place of the rows `replaced` of Silver at `path`; return the version.

    Idempotent: a row that is earlier than its copy stays. `metadata` goes into the commit, as that of an append.
    """
    if len(replaced) <= FEW and "://" not in path:
        return _merge_here(path, rows, replaced, metadata)
    _merge_by_spark(spark, path, rows, replaced, metadata)
    return delta.last_version(spark, path)


def _merge_here(path: str, rows: DataFrame, replaced: Facts, metadata: Mapping[str, Any]) -> int:
    # Literal bounds: the MERGE opens the files of these rows, not the whole table.
    low, high = (f"'{kafka_moment(int(bound)).isoformat()}'" for bound in (replaced.kafka_us.min(), replaced.kafka_us.max()))
    within = f"t._kafka_timestamp >= {low} AND t._kafka_timestamp <= {high}"
    not_earlier = "true"
    for name in reversed(_ORDER):
        not_earlier = f"(t.{name} > s.{name} OR (t.{name} = s.{name} AND {not_earlier}))"
    table = existing_table(files.absolute(path))
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


def _merge_by_spark(spark: SparkSession, path: str, rows: DataFrame, replaced: Facts, metadata: Mapping[str, Any]) -> None:
    def or_later(tail: Column, name: str) -> Column:
        return (F.col(f"t.{name}") > F.col(f"s.{name}")) | ((F.col(f"t.{name}") == F.col(f"s.{name}")) & tail)

    # At the end true: the record itself. Only one that was found to differ is among the rows.
    not_earlier = reduce(or_later, reversed(_ORDER), F.lit(True))
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(
            rows.alias("s"),
            kafka_between(int(replaced.kafka_us.min()), int(replaced.kafka_us.max()), "t.")
            & (F.col("t._event_key") == F.col("s._event_key"))
            & (F.col("t.event_id") == F.col("s.event_id")),
        )
        # By name, not all: a column that somebody added to the table is theirs.
        .whenMatchedUpdate(condition=not_earlier, set={name: F.col(f"s.{name}") for name in rows.columns})
    )
    with delta.commits_say(spark, metadata):
        merge.execute()
