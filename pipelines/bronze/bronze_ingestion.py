"""Bronze job: Kafka -> `bronze.api_usage_events`, each record once, byte for byte."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from pyspark.sql import SparkSession
from pyspark.sql.streaming import StreamingQuery

from pipelines.bronze.schema import TABLE, TOPIC_ID_PROPERTY
from pipelines.bronze.sink import JOB, BronzeSink
from pipelines.common import delta, jobs, kafka
from pipelines.common.checkpoints import open_checkpoint
from pipelines.common.errors import DataLossError, UsageError
from pipelines.common.ledger import Ledger
from pipelines.common.restores import refuse_restored
from pipelines.common.settings import Settings
from pipelines.common.tables import BRONZE


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
        versions={str(BRONZE): delta.current_version(spark, path)},
    )
    refuse_restored(checkpoint, Ledger(settings), {str(BRONZE): path})

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
    return jobs.run_stream(run, JOB, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
