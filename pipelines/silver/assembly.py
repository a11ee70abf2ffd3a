"""The parts that the stream and its replays are put together from: tables, checkpoint, sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyspark.sql import SparkSession

from pipelines.lake.checkpoint.failures import BatchFailures
from pipelines.lake.checkpoint.identity import Checkpoint, open_checkpoint
from pipelines.lake.event_schema import EventSchemas, read_schemas
from pipelines.lake.lease.leases import lease_of
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, DLQ, LEDGER, SILVER
from pipelines.runtime import delta, jobs
from pipelines.runtime.contract_start import refuse_differences, work_around_damage
from pipelines.runtime.replay import OnConflict
from pipelines.runtime.restores import refuse_restored
from pipelines.silver.batch import JOB, Targets
from pipelines.silver.breaker.breaker_gate import BreakerGate
from pipelines.silver.dedup.lookup import DeadLetterLookup, SilverLookup
from pipelines.silver.guards import Guards
from pipelines.silver.poison import PoisonSearch
from pipelines.silver.progress import Progress
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


def open_tables(spark: SparkSession, settings: Settings) -> Tables:
    """Make what is missing of Silver's tables; raise UsageError where there is no Bronze."""
    bronze, silver, dlq = BRONZE.path(settings), SILVER.path(settings), DLQ.path(settings)
    work_around_damage(settings, (BRONZE, SILVER, DLQ, LEDGER))
    delta.require_table(spark, bronze, "the Bronze table")
    schemas = read_schemas(settings.schemas_dir)
    ensure_written(spark, settings, schemas, run="start")
    refuse_differences(spark, settings, (silver_table(schemas), DLQ_TABLE), (BRONZE, LEDGER))
    written = {str(SILVER): silver, str(DLQ): dlq}
    return Tables(bronze, silver, dlq, schemas, {name: delta.current_version(spark, path) for name, path in written.items()})


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


def open_silver_checkpoint(
    spark: SparkSession, settings: Settings, tables: Tables, path: str | None, starting: str
) -> Checkpoint:
    """Open the checkpoint of a run over these tables; see `open_checkpoint` for what it refuses."""
    written = {str(SILVER): tables.silver, str(DLQ): tables.dlq}
    checkpoint = open_checkpoint(
        jobs.checkpoint_path(settings, JOB, path),
        job=JOB,
        source=delta.table_id(spark, tables.bronze),
        target=delta.table_id(spark, tables.silver),
        starting=starting,
        versions=tables.versions,
    )
    refuse_restored(checkpoint, Ledger(settings), written)
    return checkpoint


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
    lookup = SilverLookup(
        tables.silver,
        list(tables.schemas.fields),
        window_ms=settings.silver.dedup_window_hours * 3_600_000,
        skew_ms=settings.silver.skew_after_seconds * 1000,
        bounded=bounded,
    )
    return SilverSink(
        targets=targets,
        ledger=ledger,
        lease=lease_of(settings, "silver", job=job, run=checkpoint.generation),
        settings=settings.silver,
        schemas=tables.schemas,
        progress=Progress(lookup, DeadLetterLookup(tables.dlq), dict(tables.versions)),
        guards=Guards(targets, ledger),
        writer=SilverWriter(targets, settings.silver, tables.schemas),
        corrects=on_conflict == "update",
        source_version=source_version,
        breaker=breaker,
        search=search,
    )


def poison_search(settings: Settings, checkpoint: Checkpoint) -> PoisonSearch:
    """Look for poison in the batches that fail on this checkpoint."""
    return PoisonSearch(BatchFailures(JOB, checkpoint.path), settings.retries)
