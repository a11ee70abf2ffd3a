"""The parts that the stream and its replays are put together from: tables, checkpoint, sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyspark.sql import SparkSession

from pipelines.lake.checkpoint.failures import BatchFailures
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.event_schema import EventSchemas
from pipelines.lake.lease.checkpoints import CheckpointLock
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, DLQ, LEDGER, SILVER
from pipelines.runtime import delta
from pipelines.runtime.guards.start import Start
from pipelines.runtime.replay import OnConflict
from pipelines.runtime.start_up import open_start
from pipelines.silver.batch import JOB, Targets
from pipelines.silver.breaker.breaker_gate import BreakerGate
from pipelines.silver.dedup.lookup import DeadLetterLookup, SilverLookup
from pipelines.silver.guards import Guards
from pipelines.silver.poison import PoisonSearch
from pipelines.silver.progress import Progress
from pipelines.silver.rules import Rules
from pipelines.silver.schema import DLQ_TABLE, silver_table
from pipelines.silver.sink import SilverSink
from pipelines.silver.writer import SilverWriter

RECORD = [
    "_raw_value",
    "_kafka_key",
    "_kafka_headers",
    "_kafka_topic",
    "_kafka_partition",
    "_kafka_offset",
    "_kafka_timestamp",
    "_kafka_timestamp_ms",
]
"""Columns of Bronze (see `with_kafka_ms`) that Silver reads."""


@dataclass(frozen=True)
class Tables:
    """Paths of the job's tables, the schemas that Silver has the columns of, and the written tables' versions now, by name."""

    bronze: str
    silver: str
    dlq: str
    schemas: EventSchemas
    versions: Mapping[str, int] = field(default_factory=dict)


def silver_start(
    spark: SparkSession,
    settings: Settings,
    schemas: EventSchemas,
    *,
    checkpoint_path: str,
    starting: str,
    is_replay: bool = False,
    dry_run: bool = False,
) -> Start:
    """Describe the start of a stream or a replay to its guards."""
    return Start(
        spark=spark,
        settings=settings,
        job=JOB,
        reads=(BRONZE, LEDGER),
        writes=(silver_table(schemas), DLQ_TABLE),
        checkpoint_path=checkpoint_path,
        starting=starting,
        is_replay=is_replay,
        dry_run=dry_run,
    )


def open_run(start: Start, schemas: EventSchemas, lock: CheckpointLock | None = None) -> tuple[Tables, Checkpoint]:
    """Make what is missing of Silver's tables and open the checkpoint; see `open_start` for what is refused."""
    settings = start.settings
    opened = open_start(start, lambda: ensure_written(start.spark, settings, schemas, run="start"), lock)
    bronze, silver, dlq = (name.path(settings) for name in (BRONZE, SILVER, DLQ))
    return Tables(bronze, silver, dlq, schemas, opened.versions), opened.checkpoint


def ensure_written(spark: SparkSession, settings: Settings, schemas: EventSchemas, *, run: str) -> None:
    """Make what is missing of Silver and its dead letters: tables, and columns of new schema files.

    Under the lease, since a batch may be writing; it is not taken where nothing is missing.
    """
    tables = ((silver_table(schemas), SILVER.path(settings)), (DLQ_TABLE, DLQ.path(settings)))
    if all(delta.is_complete(spark, table, path) for table, path in tables):
        return
    with lease_of(settings, "silver", job=JOB, run=run).hold():
        for table, path in tables:
            delta.ensure_table(spark, table, path)
            delta.ensure_columns(spark, table, path)
            delta.ensure_properties(spark, path, table.statistics)


def make_sink(
    settings: Settings,
    tables: Tables,
    checkpoint: Checkpoint,
    *,
    on_conflict: OnConflict = "skip",
    bounded: bool = False,
    ledger: Ledger | None = None,
    job: str = JOB,
    source_version: Callable[[int], int] | None = None,
    breaker: BreakerGate | None = None,
    search: PoisonSearch | None = None,
) -> SilverSink:
    """Build the sink of one run, complete.

    `bounded`: the run reads a part of Bronze and ends by itself. `ledger`: where it records its batches, by default the
    lake's. `job`: who holds the lease.
    """
    ledger, targets = ledger or Ledger(settings), Targets(tables.silver, tables.dlq, checkpoint)
    rules, fields = Rules.of(settings.silver), list(tables.schemas.fields)
    lookup = SilverLookup(
        tables.silver,
        fields,
        window_ms=settings.silver.dedup_window_hours * 3_600_000,
        skew_ms=settings.silver.skew_after_seconds * 1000,
        bounded=bounded,
    )
    return SilverSink(
        targets=targets,
        ledger=ledger,
        lease=lease_of(settings, "silver", job=job, run=checkpoint.generation),
        settings=settings.silver,
        fields=fields,
        rules=rules,
        progress=Progress(lookup, DeadLetterLookup(tables.dlq), dict(tables.versions)),
        guards=Guards(targets, ledger),
        writer=SilverWriter(targets, settings.silver, rules, silver_table(tables.schemas).column_names),
        corrects=on_conflict == "update",
        source_version=source_version,
        breaker=breaker,
        search=search,
    )


def poison_search(settings: Settings, checkpoint: Checkpoint) -> PoisonSearch:
    """Look for poison in the batches that fail on this checkpoint."""
    return PoisonSearch(BatchFailures(JOB, checkpoint.path), settings.retries)
