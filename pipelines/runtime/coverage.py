"""Reads how far Bronze holds each partition."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.lake.ledger.ledger import Ledger


def read_coverage(spark: SparkSession, bronze: str, ledger: Ledger) -> dict[int, int]:
    """Give for each partition the end (exclusive) of what the Bronze table at `bronze` holds.

    That is what the ledger says, and the rows after it, which a crash kept from the ledger.
    """
    covered = ledger.end_offsets("bronze")
    beyond = [(F.col("_kafka_partition") == partition) & (F.col("_kafka_offset") >= end) for partition, end in covered.items()]
    unknown = ~F.col("_kafka_partition").isin(list(covered)) if covered else F.lit(True)
    rows = (
        spark.read.format("delta")
        .load(bronze)
        .where(reduce(lambda left, right: left | right, beyond, unknown))
        .groupBy("_kafka_partition")
        .agg(F.max("_kafka_offset").alias("last"))
        .collect()
    )
    return {**covered, **{row["_kafka_partition"]: row["last"] + 1 for row in rows}}
