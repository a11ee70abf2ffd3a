"""Dead letters once more through Silver's own path: the same rules, the same sink, a batch of its own for each replay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.lake import failpoints
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.lease.leases import lease_of
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, DLQ, SILVER
from pipelines.runtime import delta
from pipelines.runtime.kafka_columns import with_kafka_ms
from pipelines.silver.assembly import RECORD, Tables, ensure_written, make_sink
from pipelines.silver.batch import JOB
from pipelines.silver.dead_letters.dead_letters import OPEN, REPLAYED, claim, claimed, leave_open, release
from pipelines.silver.dedup.lookup import among
from pipelines.silver.facts import VALID, Longs
from pipelines.silver.rules import failed_ids, failed_sentences, rejecting_rules
from pipelines.silver.sink import SilverSink
from pipelines.silver.transforms import classify, coordinate, parse_events

LETTERS_IN_ONE_BATCH = 100_000
"""More are replayed as several batches, each complete before the next: a batch is held by the executors."""


@dataclass(frozen=True)
class Trial:
    """How many letters with these rules would pass now."""

    rules: tuple[str, ...]
    letters: int
    passing: int


@dataclass(frozen=True)
class Outcome:
    """What a replay did: letters that Silver has now (as a row or a copy), and letters that were rejected again."""

    replay_id: str
    replayed: int
    left_open: int


def prepare(spark: SparkSession, settings: Settings) -> None:
    """Bring the tables to the columns that the schema files and this version ask for.

    Raises UsageError where there is no Bronze or no dead-letter table.
    """
    delta.require_table(spark, BRONZE.path(settings), "the Bronze table")
    delta.require_table(spark, DLQ.path(settings), "the dead-letter table")
    ensure_written(spark, settings, read_schemas(settings.schemas_dir), run="dlq")


def try_letters(spark: SparkSession, settings: Settings, coordinates: Longs) -> list[Trial]:
    """Judge the letters by today's rules, schema files and settings; nothing is written."""
    letters = among(_letters(spark, settings), "coordinate", coordinate(), coordinates)
    judged = classify(parse_events(letters.select(*RECORD, "_quality_flags")), rejecting_rules())
    passing = F.sum((F.col("verdict") == VALID).cast("bigint")).alias("passing")
    rows = judged.groupBy("_quality_flags").agg(F.count(F.lit(1)).alias("letters"), passing).collect()
    return sorted((Trial(tuple(row[0] or ()), row["letters"], row["passing"]) for row in rows), key=lambda trial: trial.rules)


def replay(spark: SparkSession, settings: Settings, coordinates: Longs, replay_id: str) -> Outcome:
    """Claim the open letters at `coordinates` and replay them, in one batch or several.

    Guarantee: a letter is closed after Silver has its fate. A replay that dies is completed by `finish`: its batch has
    its transaction id and its ledger row once, as a stream's batch that runs again.
    """
    ordered = np.sort(coordinates)
    parts = [ordered[first : first + LETTERS_IN_ONE_BATCH] for first in range(0, len(ordered), LETTERS_IN_ONE_BATCH)]
    outcomes = []
    for number, part in enumerate(parts):
        part_id = replay_id if len(parts) == 1 else f"{replay_id}.{number}"
        with lease_of(settings, "silver", job="dlq", run=part_id).hold():
            claim(spark, DLQ.path(settings), part, part_id)
        failpoints.reach("replay.after_claim")
        outcomes.append(finish(spark, settings, part_id))
    return Outcome(replay_id, sum(one.replayed for one in outcomes), sum(one.left_open for one in outcomes))


def finish(spark: SparkSession, settings: Settings, replay_id: str) -> Outcome:
    """Give the letters that `replay_id` has claimed their fate; idempotent.

    Where the sink fails before it wrote anything, the letters are let go with an attempt more, so that one that cannot
    be processed does not stop every later replay.
    """
    sink = silver_sink(spark, settings, replay_id)
    # From end to end: the states are changes of a table that a running stream writes, too.
    with sink.lease.hold():
        return _finish(spark, DLQ.path(settings), sink, replay_id)


def _finish(spark: SparkSession, path: str, sink: SilverSink, replay_id: str) -> Outcome:
    started = datetime.now(UTC)
    try:
        sink(_claimed_by(spark, path, replay_id).select(RECORD), 0)
    except Exception:
        if not _has_written(spark, sink):
            release(spark, path, replay_id, started)
        raise
    failpoints.reach("replay.after_sink")
    _leave_open(spark, path, replay_id, started)
    mine = spark.read.format("delta").load(path).where(F.col("_replay_id") == replay_id)
    states = {row["_status"]: row["count"] for row in mine.groupBy("_status").count().collect()}
    return Outcome(replay_id, states.get(REPLAYED, 0), states.get(OPEN, 0))


def _leave_open(spark: SparkSession, path: str, replay_id: str, at: datetime) -> None:
    rules = rejecting_rules()
    judged = parse_events(_claimed_by(spark, path, replay_id).select(RECORD)).select(
        coordinate().alias("coordinate"),
        failed_ids(rules).alias("_quality_flags"),
        failed_sentences(rules).alias("_error_message"),
    )
    coordinates = judged.select("coordinate").toArrow().column("coordinate").to_numpy()
    if len(coordinates):
        leave_open(judged, path, coordinates, at)


def _has_written(spark: SparkSession, sink: SilverSink) -> bool:
    checkpoint = sink.targets.checkpoint
    committed = delta.transaction_version(spark, sink.targets.silver, checkpoint.app_id())
    return committed is not None or sink.ledger.has(JOB, checkpoint.generation, 0)


def silver_sink(spark: SparkSession, settings: Settings, replay_id: str) -> SilverSink:
    """Silver's sink for one replay: its checkpoint is the replay, whose only batch is number 0."""
    tables = Tables(BRONZE.path(settings), SILVER.path(settings), DLQ.path(settings), read_schemas(settings.schemas_dir))
    checkpoint = Checkpoint(
        path="",
        generation=replay_id,
        job=JOB,
        source=delta.table_id(spark, tables.dlq),
        target=delta.table_id(spark, tables.silver),
        starting="",
        is_new=True,
    )
    # Bounded: the keys since the oldest letter might not fit into memory.
    return make_sink(settings, tables, checkpoint, bounded=True, ledger=_ReplayLedger(settings), job="dlq")


class _ReplayLedger(Ledger):
    """A replay reads no range of offsets: which records it had, the dead letters say by their `_replay_id`."""

    def record(self, row: BatchRow) -> None:
        super().record(replace(row, offsets={}, holes={}))


def _letters(spark: SparkSession, settings: Settings) -> DataFrame:
    return with_kafka_ms(spark.read.format("delta").load(DLQ.path(settings)).where(F.col("_status") == OPEN))


def _claimed_by(spark: SparkSession, path: str, replay_id: str) -> DataFrame:
    # Loaded anew each time: a frame keeps the version that it was made from.
    return with_kafka_ms(claimed(spark.read.format("delta").load(path)).where(F.col("_replay_id") == replay_id))
