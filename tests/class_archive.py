"""Make build/spark.jsa, the archive of classes from which the JVMs of `make test` start.

A test run starts Spark some hundred times, and each start reads, verifies and links ten thousand classes out of jars; with
the archive that takes two thirds of the time. It holds classes only, so it changes nothing in what is tested, and a JVM with
another class path leaves it alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from pipelines.lake.settings_sources import load_settings
from pipelines.runtime.session import build_session


def _use(spark: SparkSession, folder: Path) -> None:
    """Touch what nearly every test touches: a Delta table, its change feed, a MERGE, a stream, Arrow."""
    table = str(folder / "table")
    rows = spark.range(100).selectExpr("id", "id % 7 AS key", "CAST(id AS string) AS text", "timestamp_seconds(id) AS at")
    rows.write.format("delta").option("delta.enableChangeDataFeed", "true").save(table)
    merged = DeltaTable.forPath(spark, table).alias("t").merge(rows.limit(5).alias("s"), "t.id = s.id")
    merged.whenMatchedUpdate(set={"text": "'x'"}).whenNotMatchedInsertAll().execute()
    spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0).load(table).toArrow()

    def count(batch: DataFrame, _: int) -> None:
        batch.groupBy("key").count().collect()

    stream = spark.readStream.format("delta").load(table).withWatermark("at", "1 hour")
    query = stream.writeStream.option("checkpointLocation", str(folder / "checkpoint")).foreachBatch(count)
    query.trigger(availableNow=True).start().awaitTermination()


def main(archive: Path) -> None:
    """Start Spark, use it, and let its JVM write the archive when it ends."""
    os.environ["SPARK_SUBMIT_OPTS"] = f"-XX:ArchiveClassesAtExit={archive} -Xlog:disable"
    archive.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        spark = build_session(load_settings(None, environ={}, overrides={"lake.state_dir": folder}), "class archive")
        _use(spark, Path(folder))
        gateway: Any = spark.sparkContext._gateway
        spark.stop()
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(120)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
