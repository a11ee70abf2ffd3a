"""Says what the batch ledger knows of Silver up to one of its versions: rows, offsets read, conflicts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.publish import moment
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.ledger_row import BatchRow
from pipelines.lake.places import absolute
from pipelines.lake.tables import SILVER
from pipelines.runtime import delta

_LOOKED_BACK = 50
"""Commits among which a batch is looked for that is written and not yet in the ledger: as many as a restart looks at."""


@dataclass(frozen=True)
class SilverLedger:
    """`rows`: inserted by batches up to a version of Silver; `ends`: by Kafka partition, end (exclusive) of what was read.

    `records_read`, `conflicts`: of the batches that began within the day and its grace.
    """

    rows: int
    ends: dict[int, int]
    records_read: int
    conflicts: int


def read_silver_ledger(
    spark: SparkSession, path: str, silver: str, version: int, within: tuple[datetime, datetime]
) -> SilverLedger | None:
    """Read the ledger at `path` for `silver` at `version`; None where it has no batch of Silver.

    `within`: begin of the day and end of its grace. A batch whose commit is there and whose row is not yet (running now, or ended
    by a crash) counts by what its commit says.
    """
    if not delta.is_delta_table(spark, path):
        return None
    at = F.get_json_object("versions", f"$['{SILVER}']").cast("bigint")
    # Batches of later versions are not in what is audited; those without a version changed nothing in Silver.
    batches = spark.read.format("delta").load(path).where("job = 'silver'").withColumn("at", at)
    standing = batches.where(F.col("at").isNull() | (F.col("at") <= version))
    begun = F.col("started_at").between(*map(moment, within))
    found = standing.agg(
        F.count(F.lit(1)),
        F.sum("inserted"),
        F.sum(F.when(begun, F.col("rows_read"))),
        F.sum(F.when(begun, F.col("conflict"))),
        F.max("at"),
    ).collect()[0]
    if not found[0]:
        return None
    unrecorded = _unrecorded(spark, batches, silver, version, after=-1 if found[4] is None else found[4])
    ends = _ends(batches)
    for row in unrecorded:
        for partition, (_, stop) in row.spans.items():
            ends[partition] = max(stop, ends.get(partition, 0))
    return SilverLedger((found[1] or 0) + sum(row.inserted for row in unrecorded), ends, found[2] or 0, found[3] or 0)


def _ends(batches: DataFrame) -> dict[int, int]:
    spans = batches.select(F.explode(F.from_json("offsets", "MAP<STRING, ARRAY<BIGINT>>")).alias("partition", "span"))
    rows = spans.where("partition RLIKE '^[0-9]+$'").groupBy("partition").agg(F.max(F.col("span")[1]).alias("stop")).collect()
    return {int(row["partition"]): row["stop"] for row in rows}


def _unrecorded(spark: SparkSession, batches: DataFrame, silver: str, version: int, *, after: int) -> list[BatchRow]:
    commits = newest_commits(absolute(silver), version, after=after, at_most=_LOOKED_BACK)
    rows = {(row.generation, row.batch_id): row for commit in commits if (row := commit.batch_row("silver")) is not None}
    if not rows:
        return []
    keys = F.struct("generation", "batch_id")
    wanted = [F.struct(F.lit(generation), F.lit(batch_id).cast("bigint")) for generation, batch_id in rows]
    known = {(row[0], row[1]) for row in batches.where(keys.isin(wanted)).select("generation", "batch_id").collect()}
    return [row for key, row in rows.items() if key not in known]
