"""Bronze job: Kafka -> `bronze.api_usage_events`, each record once, byte for byte."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from pipelines.archive import records as archived
from pipelines.bronze.plain_client import read_ranges
from pipelines.bronze.schema import TABLE
from pipelines.bronze.sink import JOB, BronzeSink
from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.checkpoint.progress import planned_offsets
from pipelines.lake.errors import UsageError
from pipelines.lake.kafka.options import client_config, source_options
from pipelines.lake.kafka.topic import TOPIC_ID_PROPERTY, TopicState, offsets_at, refuse_recreated_topic, wait_for_topic
from pipelines.lake.kafka.watch import TopicWatch
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger import known_gaps
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, KNOWN_GAPS, LEDGER
from pipelines.runtime import delta, jobs
from pipelines.runtime.flags import job_parser, parse_offsets
from pipelines.runtime.guards.start import Start
from pipelines.runtime.replay import NOTHING_THERE, Plan, Ranges, Selection, cut, open_plan, run_plan, selection_of
from pipelines.runtime.start_up import look_at_source, open_start
from pipelines.runtime.stream_life import start_stream


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
    was made anew, or a new checkpoint would begin behind records that nobody read); then no batch is written.
    """
    topic = wait_for_topic(settings)
    starting = _starting(starting_offsets, topic)
    path = checkpoint_path_of(settings, JOB, checkpoint_path)
    start = _start(spark, settings, topic, checkpoint_path=path, starting=starting_offsets or "")
    look_at_source(start)
    checkpoint = open_start(start, lambda: _ensure_tables(start)).checkpoint
    with checkpoint.lock.released_on_error():
        if checkpoint.is_new and not starting_offsets and checkpoint.starting:
            # Made from what the table holds, after the old one was lost.
            starting = _starting(checkpoint.starting, topic)
        sink = _sink(settings, checkpoint, lambda batch_id: planned_offsets(checkpoint.path, batch_id))
        records = (
            spark.readStream.format("kafka")
            .options(**source_options(settings))
            .option("startingOffsets", starting)
            .option("maxOffsetsPerTrigger", settings.bronze.max_offsets_per_trigger)
            .load()
        )
        writer = records.writeStream.queryName(JOB).option("checkpointLocation", checkpoint.path)
        return start_stream(writer, sink, trigger or settings.bronze.trigger, checkpoint.lock)


def replay(spark: SparkSession, settings: Settings, args: argparse.Namespace, stop: threading.Event) -> None:
    """Read a part of the topic again; records that Bronze has are dropped, so that only what is missing is written.

    A crashed replay is gone on with by the same flags. Raises UsageError (offsets or days that Kafka does not have, a
    checkpoint that is another's), DataLossError (the topic was made anew); then nothing is written.
    """
    selection = selection_of(args)
    topic = wait_for_topic(settings)
    selection.refuse_unknown({part: (topic.start[part], topic.end[part]) for part in topic.start}, "Kafka")
    ranges = _selected(settings, topic, selection)
    records = sum(end - first for first, end in ranges.values())
    if not records:
        raise UsageError(NOTHING_THERE.format("Kafka"))
    plan = Plan(cut(ranges, records), records)
    sys.stderr.write(f"replay of {plan}\n")
    if not args.dry_run:
        fill(spark, settings, topic, plan, checkpoint_path=args.checkpoint_path, what=selection.text(), stop=stop)


def fill(
    spark: SparkSession,
    settings: Settings,
    topic: TopicState,
    plan: Plan,
    *,
    checkpoint_path: str,
    what: str,
    stop: threading.Event,
) -> None:
    """Read the ranges of `plan` from Kafka and write the records that Bronze lacks; `what` is kept in the checkpoint."""
    start = _start(spark, settings, topic, checkpoint_path=checkpoint_path, starting=what, is_replay=True)
    look_at_source(start)
    checkpoint = open_start(start, lambda: _ensure_tables(start)).checkpoint
    with checkpoint.lock:
        plan = open_plan(checkpoint, plan)
        spans = [tuple({part: span[side] for part, span in ranges.items()} for side in (0, 1)) for ranges in plan.batches]
        sink = _sink(settings, checkpoint, lambda number: (spans[number][0], spans[number][1]))

        def read_again(ranges: Ranges, number: int) -> None:
            start, end = spans[number]
            options = {key: value for key, value in source_options(settings).items() if key != "subscribe"}
            batch = (
                spark.read.format("kafka")
                .options(**options)
                .option("assign", json.dumps({topic.topic: sorted(ranges)}))
                .option("startingOffsets", json.dumps({topic.topic: {str(part): offset for part, offset in start.items()}}))
                .option("endingOffsets", json.dumps({topic.topic: {str(part): offset for part, offset in end.items()}}))
                .load()
            )
            sink(batch, number)

        run_plan(checkpoint, plan, read_again, stop)


def _selected(settings: Settings, topic: TopicState, selection: Selection) -> dict[int, tuple[int, int]]:
    named = {*(selection.starting or {}), *(selection.ending or {})} or set(topic.start)
    first = {part: (selection.starting or {}).get(part, topic.start[part]) for part in named}
    end = {part: (selection.ending or {}).get(part, topic.readable[part]) for part in named}
    if selection.from_date is not None:
        begin = offsets_at(settings, topic, selection.from_date)
        first = {part: max(offset, begin[part]) for part, offset in first.items()}
    # The calendar's last day has no next one, and nothing comes after it.
    if selection.to_date is not None and selection.to_date < date.max:
        # Timestamps may run out of order: a record of the last day that stands behind the first of the next one is left out.
        after = offsets_at(settings, topic, selection.to_date + timedelta(days=1))
        end = {part: min(offset, after[part]) for part, offset in end.items()}
    return {part: (first[part], end[part]) for part in sorted(named) if first[part] < end[part]}


def _start(
    spark: SparkSession, settings: Settings, topic: TopicState, *, checkpoint_path: str, starting: str, is_replay: bool = False
) -> Start:
    return Start(
        spark=spark,
        settings=settings,
        job=JOB,
        reads=(LEDGER,),
        writes=(TABLE,),
        topic=topic,
        checkpoint_path=checkpoint_path,
        starting=starting,
        is_replay=is_replay,
    )


def _ensure_tables(start: Start) -> None:
    """Make the tables, or the columns of Bronze that an older version did not know."""
    spark, settings, topic = start.spark, start.settings, start.topic
    path = BRONZE.path(settings)
    delta.ensure_table(spark, TABLE, path, {TOPIC_ID_PROPERTY: topic.topic_id} if topic is not None else {})
    if not delta.is_complete(spark, TABLE, path):
        # A batch may be writing beside a replay.
        with lease_of(settings, "bronze", job=JOB, run="start").hold():
            delta.ensure_columns(spark, TABLE, path)
            delta.ensure_properties(spark, path, TABLE.statistics)
    # The checks of offsets read these, so they are there from the first day.
    delta.ensure_table(spark, known_gaps.TABLE, KNOWN_GAPS.path(settings))
    archived.ensure(settings)


def _sink(
    settings: Settings, checkpoint: Checkpoint, planned: Callable[[int], tuple[dict[int, int], dict[int, int]]]
) -> BronzeSink:
    path = BRONZE.path(settings)
    lease = lease_of(settings, "bronze", job=JOB, run=checkpoint.generation)
    watch = TopicWatch(settings)

    def refuse_new_topic() -> None:
        refuse_recreated_topic(path, checkpoint.source, settings.kafka.topic, watch.topic_id())

    def read_plainly(spark: SparkSession, start: Mapping[int, int], end: Mapping[int, int]) -> DataFrame:
        return read_ranges(spark, client_config(settings), settings.kafka.topic, start, end)

    moved = partial(_archived_ranges, settings)
    return BronzeSink(path, checkpoint, Ledger(settings), lease, planned, refuse_new_topic, read_plainly, moved)


def _archived_ranges(settings: Settings) -> dict[int, list[tuple[int, int]]]:
    return archived.ranges(archived.rows(settings))


def _starting(text: str | None, topic: TopicState) -> str:
    """Spark's `startingOffsets` for what the user gave: earliest, latest, or offsets for some partitions."""
    if text in (None, "earliest", "latest"):
        return text or "earliest"
    given: Mapping[int, int] = parse_offsets(text) or {}
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from the command line."""
    return jobs.run_stream(run, replay, JOB, job_parser(__doc__ or ""), argv)


if __name__ == "__main__":
    run_process(main)
