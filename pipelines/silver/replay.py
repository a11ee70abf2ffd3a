"""Replays of a part of Bronze into Silver: by offsets or days, with an end."""

from __future__ import annotations

import argparse
import json
import sys
import threading

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.archive.guard import refuse_archived
from pipelines.lake.errors import UsageError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE
from pipelines.runtime import delta
from pipelines.runtime.kafka_columns import in_ranges, with_kafka_ms
from pipelines.runtime.replay import NOTHING_THERE, OnConflict, Plan, Ranges, Selection, cut, open_plan, run_plan, selection_of
from pipelines.runtime.start_up import look_at_source
from pipelines.silver.assembly import RECORD, make_sink, open_run, poison_search, silver_start


def replay(
    spark: SparkSession, settings: Settings, args: argparse.Namespace, stop: threading.Event, on_conflict: OnConflict = "skip"
) -> None:
    """Read a part of Bronze again, through the stream's own sink; a crashed one is gone on with by the same flags.

    Idempotent: each record's fate is looked up in the tables. Safe beside the stream: both take the lease for each batch.
    Raises UsageError (offsets or days that Bronze does not have, or that are in the archive alone, a checkpoint that is
    another's); then nothing is written.
    """
    selection = selection_of(args)
    bronze = BRONZE.path(settings)
    schemas = read_schemas(settings.schemas_dir)
    flags = _flags(selection, on_conflict)
    path = args.checkpoint_path or ""
    start = silver_start(spark, settings, schemas, checkpoint_path=path, starting=flags, is_replay=True, dry_run=args.dry_run)
    look_at_source(start)
    selection.refuse_unknown(known_ranges(spark, settings, bronze), "Bronze")
    refuse_archived(
        settings,
        first_day=selection.from_date,
        last_day=selection.to_date,
        starting=selection.starting,
        ending=selection.ending,
    )
    plan = _plan(spark, bronze, selection)
    sys.stderr.write(f"replay of {plan}\n")
    if args.dry_run:
        return
    tables, checkpoint = open_run(start, schemas)
    with checkpoint.lock:
        plan = open_plan(checkpoint, plan)
        search = poison_search(settings, checkpoint)
        sink = make_sink(settings, tables, checkpoint, on_conflict=on_conflict, bounded=True, search=search)
        rows = spark.read.format("delta").option("versionAsOf", plan.version).load(bronze).where(selection.condition())

        def read_again(ranges: Ranges, number: int) -> None:
            start, end = ({part: span[side] for part, span in ranges.items()} for side in (0, 1))
            sink(with_kafka_ms(rows.where(in_ranges(start, end))).select(*RECORD), number)

        run_plan(checkpoint, plan, read_again, stop)


def _flags(selection: Selection, on_conflict: OnConflict) -> str:
    """What the checkpoint keeps of the flags: its batches are done for these alone."""
    asked = json.loads(selection.text())
    # Left out by default: a replay that an older version began is gone on with.
    return json.dumps(asked if on_conflict == "skip" else {**asked, "on_conflict": on_conflict}, sort_keys=True)


def _plan(spark: SparkSession, bronze: str, selection: Selection) -> Plan:
    version = delta.current_version(spark, bronze)
    found = (
        spark.read.format("delta")
        .option("versionAsOf", version)
        .load(bronze)
        .where(selection.condition())
        .groupBy("_kafka_partition")
        .agg(F.min("_kafka_offset").alias("first"), F.max("_kafka_offset").alias("last"), F.count(F.lit(1)).alias("records"))
        .collect()
    )
    if not found:
        raise UsageError(NOTHING_THERE.format("Bronze"))
    ranges = {row["_kafka_partition"]: (row["first"], row["last"] + 1) for row in found}
    records = sum(row["records"] for row in found)
    return Plan(cut(ranges, records), records, version)


def known_ranges(spark: SparkSession, settings: Settings, bronze: str) -> Ranges:
    """First and end offset of each partition in Bronze: by the ledger, or where it says nothing by the table."""
    recorded = Ledger(settings).positions("bronze")
    if recorded:
        return recorded
    offset = F.col("_kafka_offset")
    rows = spark.read.format("delta").load(bronze).groupBy("_kafka_partition").agg(F.min(offset), F.max(offset)).collect()
    return {row[0]: (row[1], row[2] + 1) for row in rows}
