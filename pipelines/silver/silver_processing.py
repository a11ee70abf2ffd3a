"""Silver job: Bronze -> `silver.api_usage_events` and its dead letters; each Bronze record ends with one fate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.checkpoint.progress import source_version
from pipelines.lake.contract.source_gaps import find_gap
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.versions import has_commit
from pipelines.lake.errors import UsageError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.lease.checkpoints import CheckpointLock
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.places import absolute
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE
from pipelines.runtime import delta, jobs
from pipelines.runtime.flags import job_parser, parse_offsets, parse_version
from pipelines.runtime.kafka_columns import with_kafka_ms
from pipelines.runtime.replay import OnConflict, Selection
from pipelines.runtime.start_up import look_at_source
from pipelines.runtime.stream_life import start_stream
from pipelines.silver.assembly import RECORD, Tables, make_sink, open_run, poison_search, silver_start
from pipelines.silver.batch import JOB
from pipelines.silver.breaker.breaker_gate import BreakerGate
from pipelines.silver.breaker.breaker_store import BreakerStore
from pipelines.silver.replay import known_ranges, replay


def run(
    spark: SparkSession,
    settings: Settings,
    *,
    checkpoint_path: str | None = None,
    trigger: str | None = None,
    starting_offsets: str | None = None,
    on_conflict: OnConflict = "skip",
    lock: CheckpointLock | None = None,
) -> StreamingQuery:
    """Start the stream. `on_conflict` says what becomes of a row whose record now reads differently.

    `lock`: the checkpoint's, where the caller has it already; the stream releases it when it ends.

    Raises UsageError (no Bronze table, wrong offsets, records that are in the archive alone, another driver on the
    checkpoint), CheckpointError; then nothing is written.
    """
    schemas = read_schemas(settings.schemas_dir)
    path = checkpoint_path_of(settings, JOB, checkpoint_path)
    start = silver_start(spark, settings, schemas, checkpoint_path=path, starting=starting_offsets or "")
    look_at_source(start)
    _refuse_unknown(spark, settings, *_starting(starting_offsets))
    tables, checkpoint = open_run(start, schemas, lock)
    with checkpoint.lock.released_on_error():
        return _start(spark, settings, tables, checkpoint, trigger=trigger or settings.silver.trigger, on_conflict=on_conflict)


def _start(
    spark: SparkSession, settings: Settings, tables: Tables, checkpoint: Checkpoint, *, trigger: str, on_conflict: OnConflict
) -> StreamingQuery:
    read = _records(spark, settings, tables, checkpoint)
    sink = make_sink(
        settings,
        tables,
        checkpoint,
        on_conflict=on_conflict,
        source_version=partial(source_version, checkpoint.path),
        breaker=BreakerGate(settings.breaker, tables.bronze, checkpoint.generation, BreakerStore(settings), Ledger(settings)),
        search=poison_search(settings, checkpoint),
    )
    writer = read.writeStream.queryName(JOB).option("checkpointLocation", checkpoint.path)
    return start_stream(writer, sink, trigger, checkpoint.lock)


def _records(spark: SparkSession, settings: Settings, tables: Tables, checkpoint: Checkpoint) -> DataFrame:
    """Bronze's records as a stream, from where the checkpoint began."""
    # As the checkpoint has it, not the flag: it holds for the stream's whole life, and for one that was rebuilt.
    version, starting = _starting(checkpoint.starting or None)
    if version is None and starting:
        version = _first_version(settings, starting)
    records = spark.readStream.format("delta").option("maxBytesPerTrigger", settings.silver.max_bytes_per_trigger)
    if version and _is_readable(tables.bronze, version, is_new=checkpoint.is_new):
        records = records.option("startingVersion", str(version))
    read = records.load(tables.bronze)
    for partition, offset in starting.items():
        read = read.where((F.col("_kafka_partition") != partition) | (F.col("_kafka_offset") >= offset))
    # The watermark says how far event time has come; it never decides to drop, and a wrong clock does not push it.
    kafka_time = F.coalesce(F.unix_micros("_kafka_timestamp"), F.lit(0))
    event_time = F.least(F.expr("events.time(_raw_value)"), kafka_time)
    return (
        with_kafka_ms(read)
        .select(*RECORD, F.timestamp_micros(event_time).alias("_watermark_time"))
        .withWatermark("_watermark_time", f"{settings.silver.late_after_seconds} seconds")
        .drop("_watermark_time")
    )


def _is_readable(bronze: str, version: int, *, is_new: bool) -> bool:
    """Whether all that was added since `version` can be read as it was added; otherwise the table is read as it stands.

    A stream that has begun goes on from its own position, whatever became of the versions before.
    """
    if not has_commit(bronze, version):
        return False
    return not is_new or find_gap(existing_table(absolute(bronze)), version, change_feed=False) is None


def _starting(text: str | None) -> tuple[int | None, Mapping[int, int]]:
    """Bronze version and Kafka offsets to begin at: `{"bronze_version": n}`, or `{"<partition>": offset}`."""
    version = parse_version(text, "bronze_version")
    return (version, {}) if version is not None else (None, parse_offsets(text) or {})


def _refuse_unknown(spark: SparkSession, settings: Settings, version: int | None, starting: Mapping[int, int]) -> None:
    """Raise UsageError where Bronze does not have what is asked for: the stream would read nothing."""
    bronze = BRONZE.path(settings)
    if version is not None and version > (current := delta.current_version(spark, bronze)):
        msg = f"--starting-offsets gives version {version}, but Bronze is at version {current}; correct it."
        raise UsageError(msg)
    if starting:
        Selection(starting=starting).refuse_unknown(known_ranges(spark, settings, bronze), "Bronze")


def _first_version(settings: Settings, starting: Mapping[int, int]) -> int:
    """Bronze version before which no record from `starting` on, nor of another partition, was written; 0 if unknown."""
    return 0 if not starting else Ledger(settings).first_version(BRONZE, "bronze", starting)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from the command line."""
    parser = job_parser(__doc__ or "")
    parser.add_argument(
        "--on-conflict",
        choices=("skip", "update"),
        default="skip",
        help="a row whose record now reads differently (a new schema version): leave it, or correct it (default: %(default)s)",
    )
    return jobs.run_stream(run, replay, JOB, parser, argv)


if __name__ == "__main__":
    run_process(main)
