"""Bronze job: Kafka -> `bronze.api_usage_events`, each record once, byte for byte."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from pipelines.bronze.schema import TABLE, TOPIC_ID_PROPERTY
from pipelines.bronze.transforms import build_bronze_rows, drop_known, in_ranges
from pipelines.common import delta, jobs, kafka
from pipelines.common.checkpoints import Checkpoint, open_checkpoint, planned_offsets
from pipelines.common.errors import DataLossError, UsageError
from pipelines.common.ledger import BatchRow, Ledger
from pipelines.common.logging import Log
from pipelines.common.session import build_session
from pipelines.common.settings import Settings
from pipelines.common.tables import BRONZE

JOB = "bronze"
_LOG = Log(JOB)
_COORDINATES = ["_kafka_topic", "_kafka_partition", "_kafka_offset"]


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    checkpoint_path: str | None = None,
    trigger: str | None = None,
    starting_offsets: str | None = None,
) -> StreamingQuery:
    """Start the stream.

    Raises TransientError (no broker), UsageError (no topic, wrong offsets), CheckpointError, DataLossError (the topic
    was made anew); then nothing is written.
    """
    topic = kafka.wait_for_topic(settings)
    starting = _starting(starting_offsets, topic)
    path = BRONZE.path(settings)
    delta.ensure_table(spark, TABLE, path, {TOPIC_ID_PROPERTY: topic.topic_id})
    _refuse_new_topic(spark, path, topic)
    checkpoint = open_checkpoint(
        spark,
        jobs.checkpoint_path(settings, JOB, checkpoint_path),
        job=JOB,
        source=topic.topic_id,
        target=delta.table_id(spark, path),
        starting=starting_offsets or "",
    )

    records = (
        spark.readStream.format("kafka")
        .options(**kafka.source_options(settings))
        .option("startingOffsets", starting)
        .option("maxOffsetsPerTrigger", settings.bronze.max_offsets_per_trigger)
        .load()
    )
    writer = (
        records.writeStream.queryName(JOB)
        .option("checkpointLocation", checkpoint.path)
        .foreachBatch(BronzeSink(path, checkpoint, Ledger(settings)))
    )
    return jobs.set_trigger(writer, trigger or settings.bronze.trigger).start()


@dataclass
class BronzeSink:
    """Appends a batch of Kafka records to Bronze.

    Guarantee: each (topic, partition, offset) stands once. A batch that runs again is skipped by Delta's transaction
    id; a fresh checkpoint that reads a range again finds what the table has and drops it.
    """

    path: str
    checkpoint: Checkpoint
    ledger: Ledger
    _covered: dict[int, int] | None = field(default=None)
    """For each partition the end (exclusive) of what the table holds; read when the first batch comes."""

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch and its ledger row."""
        started = datetime.now(UTC)
        spark = batch.sparkSession
        if self._covered is None:
            if self._recover(spark, batch_id):
                return
            self._covered = self._read_coverage(spark)
        start, end = planned_offsets(spark, self.checkpoint, batch_id)
        rows = build_bronze_rows(batch, started)
        seen = Observation()
        rows = rows.observe(seen, F.count(F.lit(1)).alias("rows"))
        if any(start.get(partition, 0) < self._covered.get(partition, 0) for partition in end):
            known = spark.read.format("delta").load(self.path).where(in_ranges(start, end)).select(_COORDINATES)
            rows = drop_known(rows, known)
        written = Observation()
        rows = rows.observe(written, F.count(F.lit(1)).alias("rows"))
        key = {"job": JOB, "generation": self.checkpoint.generation, "batch_id": batch_id}
        offsets = {str(partition): [start.get(partition, 0), stop] for partition, stop in sorted(end.items())}
        metadata = BatchRow(**key, offsets=offsets, started_at=started).metadata()
        version = delta.append(rows, self.path, app_id=self.checkpoint.app_id(), batch_id=batch_id, metadata=metadata)
        read, inserted = seen.get["rows"], written.get["rows"]
        self.ledger.record(
            BatchRow(
                **key,
                offsets=offsets,
                rows_read=read,
                inserted=inserted,
                already_present=read - inserted,
                versions={str(BRONZE): version},
                started_at=started,
            )
        )
        self._covered.update({partition: max(stop, self._covered.get(partition, 0)) for partition, stop in end.items()})
        _LOG.info("batch written", batch=batch_id, rows=inserted, version=version)

    def _recover(self, spark: SparkSession, batch_id: int) -> bool:
        """Finish the ledger of a batch that was committed before a crash; True where there was one."""
        done = delta.transaction_version(spark, self.path, self.checkpoint.app_id())
        if done is None or done < batch_id:
            return False
        key = {"job": JOB, "generation": self.checkpoint.generation, "batch_id": batch_id}
        metadata = delta.batch_metadata(spark, self.path, key)
        if metadata is None:
            msg = (
                f"Bronze says that batch {batch_id} of generation {self.checkpoint.generation} was written, but its last 50 "
                "commits do not show it; the table was restored or the checkpoint is old: start with a new checkpoint path."
            )
            raise DataLossError(msg)
        if not self.ledger.has(**key):
            row = BatchRow.from_metadata(metadata)
            start = {int(partition): first for partition, (first, _) in row.offsets.items()}
            end = {int(partition): stop for partition, (_, stop) in row.offsets.items()}
            version = metadata["version"]
            table = spark.read.format("delta").option("versionAsOf", version).load(self.path).where(in_ranges(start, end))
            inserted = table.where(F.col("_ingested_at") == F.lit(row.started_at)).count()
            self.ledger.record(
                BatchRow.from_metadata(
                    {
                        **metadata,
                        "rows_read": table.count(),
                        "inserted": inserted,
                        "already_present": table.count() - inserted,
                        "versions": {str(BRONZE): version},
                    }
                )
            )
        _LOG.info("batch was already written", batch=batch_id)
        return True

    def _read_coverage(self, spark: SparkSession) -> dict[int, int]:
        """End of what the table holds: what the ledger says, and the rows after it, which a crash kept from the ledger."""
        covered = self.ledger.end_offsets(JOB)
        beyond = [
            (F.col("_kafka_partition") == partition) & (F.col("_kafka_offset") >= end) for partition, end in covered.items()
        ]
        rest = ~F.col("_kafka_partition").isin(list(covered)) if covered else F.lit(True)
        for condition in beyond:
            rest = rest | condition
        rows = (
            spark.read.format("delta")
            .load(self.path)
            .where(rest)
            .groupBy("_kafka_partition")
            .agg(F.max("_kafka_offset").alias("last"))
            .collect()
        )
        return {**covered, **{row["_kafka_partition"]: row["last"] + 1 for row in rows}}


def _starting(text: str | None, topic: kafka.TopicState) -> str:
    """Spark's `startingOffsets` for what the user gave: earliest, latest, or offsets for some partitions."""
    if text in (None, "earliest", "latest"):
        return text or "earliest"
    given: Mapping[int, int] = jobs.parse_offsets(text) or {}
    for partition, offset in given.items():
        if partition not in topic.end:
            msg = f"--starting-offsets names partition {partition}, but {topic.topic} has {len(topic.end)}; correct it."
            raise UsageError(msg)
        if not topic.start[partition] <= offset <= topic.end[partition]:
            msg = (
                f"--starting-offsets begins partition {partition} at {offset}, but Kafka holds "
                f"{topic.start[partition]} to {topic.end[partition]}; correct it."
            )
            raise UsageError(msg)
    rest = {partition: first for partition, first in topic.start.items() if partition not in given}
    return json.dumps({topic.topic: {str(p): offset for p, offset in sorted({**rest, **given}.items())}})


def _refuse_new_topic(spark: SparkSession, path: str, topic: kafka.TopicState) -> None:
    known = delta.table_property(spark, path, TOPIC_ID_PROPERTY)
    if known != topic.topic_id:
        msg = (
            f"Bronze at {path} holds topic {topic.topic} with id {known}, but Kafka's has id {topic.topic_id}: it was made "
            "anew, and its offsets mean other records; give the new topic a lake of its own (`lake.root`)."
        )
        raise DataLossError(msg)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from the command line."""

    def job(args: argparse.Namespace, settings: Settings) -> None:
        stop = jobs.stop_on_signals()
        query = run(
            build_session(settings, JOB),
            settings,
            checkpoint_path=args.checkpoint_path,
            trigger=args.trigger,
            starting_offsets=args.starting_offsets,
        )
        jobs.await_query(query, stop)

    return jobs.run_job(job, jobs.job_parser(__doc__ or ""), argv)


if __name__ == "__main__":
    sys.exit(main())
