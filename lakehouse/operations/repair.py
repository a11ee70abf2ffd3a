"""Fills the holes in Bronze's offsets from Kafka, and records those that Kafka cannot fill."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.bronze.bronze_ingestion import fill
from pipelines.bronze.gaps import batches_of, fillable, find_gaps, lost, within
from pipelines.lake.delta_log.opening import has_table
from pipelines.lake.errors import UsageError
from pipelines.lake.kafka.topic import TopicState, wait_for_topic
from pipelines.lake.ledger.known_gaps import NO_RECORD, RETENTION, Gap, record_gaps
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE
from pipelines.runtime import jobs
from pipelines.runtime.replay import Plan
from pipelines.runtime.session import build_session


@dataclass(frozen=True)
class Holes:
    """What Bronze lacks of the topic: what Kafka may still have, and what it has deleted."""

    topic: TopicState
    all: list[Gap]
    fillable: list[Gap]
    lost: list[Gap]


@dataclass(frozen=True)
class Repaired:
    """Offsets that were filled, and holes in which Kafka has no record."""

    filled: int
    empty: list[Gap]


def find_holes(settings: Settings) -> Holes:
    """Look for holes; raises UsageError where there is no Bronze table, TransientError where Kafka does not answer."""
    path = BRONZE.path(settings)
    if not has_table(path):
        msg = f"There is no Bronze table at {path}, so nothing to repair; run the Bronze job first, or correct `lake.root`."
        raise UsageError(msg)
    topic = wait_for_topic(settings)
    gaps = find_gaps(settings, topic)
    return Holes(topic, gaps, fillable(gaps, topic.start), lost(gaps, topic.start))


def repair(settings: Settings, holes: Holes) -> Repaired:
    """Fill what Kafka has, and record the rest with its cause; raises StoppedError where it is stopped before the end."""
    can = holes.fillable
    if can:
        # Raises where it is stopped: what was not asked for yet is not known to have no record.
        _fill(settings, holes.topic, can)
    # Asked for and not there: transaction markers, or records that compaction took.
    empty = dict.fromkeys(within(find_gaps(settings, holes.topic), can), NO_RECORD) if can else {}
    record_gaps(settings, holes.topic.topic, {**empty, **dict.fromkeys(holes.lost, RETENTION)})
    return Repaired(sum(map(len, can)) - sum(map(len, empty)), list(empty))


def _fill(settings: Settings, topic: TopicState, gaps: list[Gap]) -> None:
    plan = Plan(batches_of(gaps), sum(map(len, gaps)))
    spark = build_session(settings, "repair")
    try:
        path = f"{settings.lake.checkpoints.rstrip('/')}/bronze/repair-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        fill(spark, settings, topic, plan, checkpoint_path=path, what=f"repair {plan}", stop=jobs.stop_on_signals())
    finally:
        spark.stop()
