"""Silver job: Bronze -> `silver.api_usage_events` and its dead letters; each Bronze record ends with one fate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import numpy as np
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from pipelines.common import delta, jobs
from pipelines.common.checkpoints import Checkpoint, open_checkpoint
from pipelines.common.event_schema import EventSchemas, read_schemas
from pipelines.common.ledger import BatchRow, Ledger
from pipelines.common.logging import Log
from pipelines.common.session import build_session
from pipelines.common.settings import Settings, SilverSettings
from pipelines.common.tables import BRONZE, DLQ, SILVER
from pipelines.silver.fates import Facts, Fates, decide, split_batch
from pipelines.silver.lookup import DeadLetterLookup, SilverLookup, among
from pipelines.silver.rules import Rule, rejecting_rules, warning_rules
from pipelines.silver.schema import DLQ_TABLE, silver_table
from pipelines.silver.transforms import (
    REJECTED,
    TOMBSTONE,
    VALID,
    build_dead_letters,
    build_facts,
    build_silver_rows,
    coordinate,
    parse_events,
)

JOB = "silver"
_LOG = Log(JOB)
_ROWS_PER_FILE = 250_000
_RECORD = ["_raw_value", "_kafka_key", "_kafka_headers", "_kafka_topic", "_kafka_partition", "_kafka_offset", "_kafka_timestamp"]


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    checkpoint_path: str | None = None,
    trigger: str | None = None,
    starting_offsets: str | None = None,
) -> StreamingQuery:
    """Start the stream.

    Raises UsageError (no Bronze table, wrong offsets), CheckpointError; then nothing is written.
    """
    starting = jobs.parse_offsets(starting_offsets)
    bronze, silver, dlq = BRONZE.path(settings), SILVER.path(settings), DLQ.path(settings)
    delta.require_table(spark, bronze, "the Bronze table")
    schemas = read_schemas(settings.schemas_dir)
    table = silver_table(schemas)
    delta.ensure_table(spark, table, silver)
    delta.ensure_columns(spark, table, silver)
    delta.ensure_table(spark, DLQ_TABLE, dlq)
    checkpoint = open_checkpoint(
        spark,
        jobs.checkpoint_path(settings, JOB, checkpoint_path),
        job=JOB,
        source=delta.table_id(spark, bronze),
        target=delta.table_id(spark, silver),
        starting=starting_offsets or "",
    )

    records = spark.readStream.format("delta").option("maxBytesPerTrigger", settings.silver.max_bytes_per_trigger).load(bronze)
    for partition, offset in (starting or {}).items():
        records = records.where((F.col("_kafka_partition") != partition) | (F.col("_kafka_offset") >= offset))
    # The watermark says how far event time has come; it never decides to drop, and a wrong clock does not push it.
    event_time = F.least(F.expr("events.time(_raw_value)"), F.unix_micros("_kafka_timestamp"))
    records = (
        records.select(*_RECORD, F.timestamp_micros(event_time).alias("_watermark_time"))
        .withWatermark("_watermark_time", f"{settings.silver.late_after_seconds} seconds")
        .drop("_watermark_time")
    )
    sink = SilverSink(
        silver=silver,
        dlq=dlq,
        checkpoint=checkpoint,
        ledger=Ledger(settings),
        settings=settings.silver,
        schemas=schemas,
        lookup=SilverLookup(
            silver,
            list(schemas.fields),
            window_us=settings.silver.dedup_window_hours * 3_600_000_000,
            skew_us=settings.silver.skew_after_seconds * 1_000_000,
        ),
        dead_letters=DeadLetterLookup(dlq),
    )
    writer = records.writeStream.queryName(JOB).option("checkpointLocation", checkpoint.path).foreachBatch(sink)
    return jobs.set_trigger(writer, trigger or settings.silver.trigger).start()


@dataclass
class SilverSink:
    """Gives each record of a Bronze batch its fate: classify narrowly, decide in the driver, write what is new.

    Guarantee: one row for an event_id in Silver and one for a coordinate among the dead letters, by looking at the
    tables; a batch that runs again after any of its writes completes the rest, and its ledger row keeps the first
    attempt's counts. A fresh checkpoint finds what the tables have. One writer at a time.
    """

    silver: str
    dlq: str
    checkpoint: Checkpoint
    ledger: Ledger
    settings: SilverSettings
    schemas: EventSchemas
    lookup: SilverLookup
    dead_letters: DeadLetterLookup
    _version: int | None = field(default=None)
    """Version of Silver that the lookup's memory stands for."""

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch and its ledger row."""
        started = datetime.now(UTC)
        spark = batch.sparkSession
        rejecting, warnings = rejecting_rules(), warning_rules(self.settings)
        facts = Facts.from_arrow(build_facts(parse_events(batch), rejecting, list(self.schemas.fields)).toArrow())
        if not len(facts):
            return
        attempted = self._attempted(spark, batch_id) if self._version is None else None
        self._refresh(spark, facts)

        survivors = split_batch(facts.take(facts.verdict == VALID))
        fates = decide(survivors.first, self.lookup.existing(spark, survivors.first))
        rejected = facts.take(facts.verdict == REJECTED)
        known = self.dead_letters.is_known(spark, rejected)
        row = BatchRow(
            job=JOB,
            generation=self.checkpoint.generation,
            batch_id=batch_id,
            offsets=facts.offset_ranges(),
            rows_read=len(facts),
            inserted=len(fates.insert),
            replaced=len(fates.replace),
            duplicate=len(survivors.duplicates) + fates.duplicates,
            conflict=survivors.conflicts + fates.conflicts,
            already_present=fates.already_present + int(np.count_nonzero(known)),
            dead_lettered=int(np.count_nonzero(~known)),
            tombstone=int(np.count_nonzero(facts.verdict == TOMBSTONE)),
            late=self._count_late(fates),
            started_at=started,
        )
        versions = self._write(batch, batch_id, row, facts, fates, rejected.take(~known), rejecting, warnings)
        if attempted is not None:
            row = attempted
        if attempted is None or not self.ledger.has(JOB, row.generation, batch_id):
            self.ledger.record(row.with_versions(versions))
        _LOG.info(
            "batch written",
            batch=batch_id,
            rows=row.rows_read,
            inserted=row.inserted,
            duplicate=row.duplicate,
            dead_lettered=row.dead_lettered,
        )

    def _write(
        self,
        batch: DataFrame,
        batch_id: int,
        row: BatchRow,
        facts: Facts,
        fates: Fates,
        rejected: Facts,
        rejecting: list[Rule],
        warnings: list[Rule],
    ) -> dict[str, int]:
        spark = batch.sparkSession
        versions: dict[str, int] = {}

        def silver_rows(wanted: Facts) -> DataFrame:
            return build_silver_rows(
                parse_events(_only(batch, wanted, facts)),
                warnings,
                silver_table(self.schemas).column_names,
                late_after_seconds=self.settings.late_after_seconds,
                processed_at=row.started_at,
            )

        def write_once(frame: DataFrame, path: str, part: str, rows: int) -> int:
            return delta.append(
                frame,
                path,
                app_id=self.checkpoint.app_id(part),
                batch_id=batch_id,
                metadata=row.metadata(),
                partitions=max(1, -(-rows // _ROWS_PER_FILE)),
            )

        if len(fates.insert):
            versions[str(SILVER)] = write_once(silver_rows(fates.insert), self.silver, "", len(fates.insert))
        if len(fates.replace):
            _replace(spark, self.silver, silver_rows(fates.replace))
            versions[str(SILVER)] = delta.last_version(spark, self.silver)
        if len(rejected):
            letters = build_dead_letters(parse_events(_only(batch, rejected, facts)), rejecting, dead_lettered_at=row.started_at)
            versions[str(DLQ)] = write_once(letters, self.dlq, "dlq", len(rejected))
            self.dead_letters.remember(rejected)
        self.lookup.remember(fates.insert)
        self.lookup.remember(fates.replace)
        self._version = versions.get(str(SILVER), self._version)
        return versions

    def _attempted(self, spark: SparkSession, batch_id: int) -> BatchRow | None:
        """The ledger row of an earlier attempt at this batch that wrote to a table and then died."""
        key = {"job": JOB, "generation": self.checkpoint.generation, "batch_id": batch_id}
        for path, part in ((self.silver, ""), (self.dlq, "dlq")):
            done = delta.transaction_version(spark, path, self.checkpoint.app_id(part))
            if done is not None and done >= batch_id:
                metadata = delta.batch_metadata(spark, path, key)
                if metadata is not None:
                    return BatchRow.from_metadata(metadata)
        return None

    def _refresh(self, spark: SparkSession, facts: Facts) -> None:
        """Read the recent keys anew at the start, and whenever somebody else committed to Silver."""
        version = delta.current_version(spark, self.silver)
        if version != self._version:
            self.lookup.load(spark, int(facts.kafka_us.min()))
            self._version = version

    def _count_late(self, fates: Fates) -> int:
        limit = self.settings.late_after_seconds * 1_000_000
        return sum(int(np.count_nonzero(rows.kafka_us - rows.event_us > limit)) for rows in (fates.insert, fates.replace))


def _only(batch: DataFrame, wanted: Facts, facts: Facts) -> DataFrame:
    """The records of `wanted`, a part of the batch's `facts`; the shorter list goes to the executors."""
    name, coordinates = "_coordinate", wanted.coordinates()
    if len(wanted) * 2 <= len(facts):
        return among(batch, name, coordinate(), coordinates)
    others = np.setdiff1d(facts.coordinates(), coordinates, assume_unique=True)
    return among(batch, name, coordinate(), others, keep=False) if len(others) else batch


def _replace(spark: SparkSession, path: str, rows: DataFrame) -> None:
    """Put earlier copies in the place of later ones; idempotent: a row that is no later than its copy stays."""
    order: list[Any] = ["_kafka_timestamp", "_kafka_partition", "_kafka_offset"]
    later = reduce(
        lambda tail, name: (F.col(f"t.{name}") > F.col(f"s.{name}")) | ((F.col(f"t.{name}") == F.col(f"s.{name}")) & tail),
        reversed(order),
        F.lit(False),
    )
    (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(rows.alias("s"), "t._event_key = s._event_key AND t.event_id = s.event_id")
        .whenMatchedUpdateAll(condition=later)
        .execute()
    )


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
