"""Takes a bad publish back: RESTORE, and what has to follow so that nothing is lost and everything still adds up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from threading import Event

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.operations.rollback.plan import RollbackPlan, metadata
from pipelines.gold.gate.gate import open_suites
from pipelines.gold.gate.suites import Suite
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.gold.schema import DAILY_TABLE, HOURLY_TABLE
from pipelines.lake import failpoints
from pipelines.lake.checkpoint.generations import next_generation_path
from pipelines.lake.checkpoint.identity import Checkpoint, open_checkpoint
from pipelines.lake.errors import UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.ledger.voids import EVENTS, LETTERS, void_row
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, DLQ, GOLD_HOURLY, SILVER
from pipelines.runtime import delta
from pipelines.runtime.stream_life import AVAILABLE_NOW, await_query
from pipelines.silver import silver_processing

_COORDINATES = ["_kafka_topic", "_kafka_partition", "_kafka_offset"]
_BYTES = ["_raw_value", "_kafka_key", "_kafka_headers"]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Rolled:
    """What was done: the version of the RESTORE; for Silver and dead letters the new generation; for Gold the days touched.

    `refused`: those of the days that a repair left as the RESTORE left them, since the gate before the bill refused them.
    """

    version: int
    checkpoint: Checkpoint | None = None
    days: tuple[date, ...] = ()
    refused: tuple[date, ...] = ()
    reopened: int = 0


def roll_back(
    spark: SparkSession, settings: Settings, plan: RollbackPlan, *, reason: str, repair: bool, progress: Progress, stop: Event
) -> Rolled:
    """Carry `plan` out. Each step is idempotent: a run that died is completed by the same command.

    From the RESTORE on, checkpoints that were made before it are refused (runtime/guards). `repair`: Silver reads the lost
    records again (until `stop`), Gold's days are recomputed; a closed day with something to adjust is audited first. Raises
    UsageError where the table has changed meanwhile, or what the gate asks cannot be read (before anything is written).
    """
    is_silver = plan.table in (SILVER, DLQ)
    suites = open_suites(settings) if repair and not is_silver else []
    with lease_of(settings, "silver" if is_silver else "gold", job="rollback", run=str(plan.table)).hold():
        # Only now: whoever held the lease until then may have written.
        if delta.current_version(spark, plan.path) != (plan.version if plan.done_at is None else plan.done_at):
            msg = (
                f"{plan.table} has changed since it was looked at: something still writes to it; stop its stream, then try again."
            )
            raise UsageError(msg)
        reopened = 0
        if plan.table == SILVER:
            progress("opening dead letters whose events are taken back")
            reopened = _reopen_dead_letters(spark, settings, plan)
        progress(f"restoring {plan.table} to version {plan.to}")
        version = _restore(spark, plan, reason) if plan.done_at is None else plan.done_at
        failpoints.reach("rollback.after_restore")
        if is_silver:
            _void(settings, plan)
            failpoints.reach("rollback.after_void")
    if not is_silver:
        days = changed_days(spark, plan)
        refused = _recompute(spark, settings, days, suites, progress) if repair else ()
        return Rolled(version, days=days, refused=refused)
    checkpoint = None
    if repair:
        checkpoint = new_generation(spark, settings, plan)
        progress("reading the records again that were taken back")
        with checkpoint.lock:
            query = silver_processing.run(
                spark, settings, checkpoint_path=checkpoint.path, trigger=AVAILABLE_NOW, lock=checkpoint.lock
            )
            await_query(query, stop)
    return Rolled(version, checkpoint, reopened=reopened)


def _restore(spark: SparkSession, plan: RollbackPlan, reason: str) -> int:
    # In the commit itself: what is done and what is said of it cannot come apart.
    with delta.commits_say(spark, metadata(plan, reason)):
        DeltaTable.forPath(spark, plan.path).restoreToVersion(plan.to)
    return delta.current_version(spark, plan.path)


def _void(settings: Settings, plan: RollbackPlan) -> None:
    """Undo the ledger's counts of the batches, and their coverage; what the other table holds of them stays counted."""
    kind = EVENTS if plan.table == SILVER else LETTERS
    rows = [void_row([row for row in plan.batches if row.generation == generation], kind) for generation in plan.generations]
    if rows:
        Ledger(settings).append(rows)


def _reopen_dead_letters(spark: SparkSession, settings: Settings, plan: RollbackPlan) -> int:
    """Open the dead letters again whose replay is taken back: only another replay gives their records a fate."""
    path = DLQ.path(settings)
    if not delta.is_delta_table(spark, path):
        return 0
    letters = spark.read.format("delta").load(path)
    replayed = letters.where("_status = 'replayed'")
    if "_closed_at" in letters.columns:
        # Not by the rows that Silver loses: a letter that became a copy has none.
        replayed = replayed.where(F.col("_closed_at") > F.lit(plan.undone_since))
    else:
        replayed = replayed.join(_at(spark, plan.path, plan.version), on=_COORDINATES, how="left_semi")
    lost = replayed.select(*_COORDINATES, "_kafka_timestamp", "_dead_lettered_at", *_BYTES)
    lost = _with_bytes(spark, settings, lost.join(_at(spark, plan.path, plan.to), on=_COORDINATES, how="left_anti"))
    same = " AND ".join(f"t.{name} = s.{name}" for name in _COORDINATES)
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(lost.alias("s"), f"{same} AND t._status = 'replayed'")
        .whenMatchedUpdate(set=letter_state(letters.columns, "open") | {name: F.col(f"s.{name}") for name in _BYTES})
    )
    with delta.commits_are_ours(spark, "rollback"):
        result = merge.execute().collect()[0]
    return int(result["num_updated_rows"])


def _with_bytes(spark: SparkSession, settings: Settings, letters: DataFrame) -> DataFrame:
    """Give the letters that have lost their bytes to retention those of Bronze: a replay would take them for tombstones.

    Raises UsageError where Bronze has not the records either.
    """
    bare = letters.where("_raw_value IS NULL")
    if bare.isEmpty():
        return letters
    bronze = spark.read.format("delta").load(BRONZE.path(settings)).where("_raw_value IS NOT NULL").select(*_COORDINATES, *_BYTES)
    found = bare.drop(*_BYTES).join(bronze.dropDuplicates(_COORDINATES), on=_COORDINATES, how="left")
    # A letter without a Kafka timestamp has its day in Bronze alone, which has not the record.
    gone = found.where("_raw_value IS NULL").select(F.coalesce("_kafka_timestamp", "_dead_lettered_at").alias("_kafka_timestamp"))
    first, last, count = gone.agg(
        F.to_date(F.min("_kafka_timestamp")), F.to_date(F.max("_kafka_timestamp")), F.count(F.lit(1))
    ).collect()[0]
    if count:
        msg = (
            f"{count} dead letters of {first} to {last} would be open again, but retention took their bytes and Bronze has not "
            f"their records any more; nothing was changed: put the days back with `python batch/archive_bronze.py --restore "
            f"--from-date {first} --to-date {last}` and try again, or choose a later version."
        )
        raise UsageError(msg)
    return letters.where("_raw_value IS NOT NULL").unionByName(found)


def letter_state(columns: Sequence[str], status: str, replay_id: str | None = None) -> dict[str, str | Column]:
    """What an update sets to make letters open again, or to close them as of now."""
    closed_at = F.lit(None if status == "open" else datetime.now(UTC)).cast("timestamp")
    state: dict[str, str | Column] = {
        "_status": F.lit(status),
        "_replay_id": F.lit(replay_id).cast("string"),
        "_closed_at": closed_at,
    }
    return {name: value for name, value in state.items() if name in columns}


def new_generation(spark: SparkSession, settings: Settings, plan: RollbackPlan) -> Checkpoint:
    """Make Silver's next checkpoint generation, which begins at the Bronze version that the restored table stands for."""
    silver, dlq = SILVER.path(settings), DLQ.path(settings)
    path = next_generation_path(settings, "silver")
    return open_checkpoint(
        path,
        job="silver",
        source=delta.table_id(spark, BRONZE.path(settings)),
        target=delta.table_id(spark, silver),
        starting=json.dumps({"bronze_version": plan.bronze_version}),
        versions={str(SILVER): delta.current_version(spark, silver), str(DLQ): delta.current_version(spark, dlq)},
    )


def changed_days(spark: SparkSession, plan: RollbackPlan) -> tuple[date, ...]:
    """Days of a Gold table whose rows differ between the two versions."""
    day = F.to_date("hour") if plan.table == GOLD_HOURLY else F.col("day")
    stamps = HOURLY_TABLE.stamps if plan.table == GOLD_HOURLY else DAILY_TABLE.stamps
    then, now = (
        rows.select(day.alias("_day"), *(name for name in rows.columns if name not in stamps))
        for rows in (_at(spark, plan.path, plan.to), _at(spark, plan.path, plan.version))
    )
    differing = then.exceptAll(now).union(now.exceptAll(then))
    return tuple(sorted(row[0] for row in differing.select("_day").distinct().collect()))


def _recompute(
    spark: SparkSession, settings: Settings, days: tuple[date, ...], suites: Sequence[Suite], progress: Progress
) -> tuple[date, ...]:
    """Recompute the days, and return those that the gate refused."""
    refused = []
    for day in days:
        progress(f"recomputing {day} from Silver")
        outcome = reconcile(spark, settings, Paths.of(settings), day, datetime.now(UTC), may_close=False, suites=suites)
        if outcome.is_refused:
            refused.append(day)
    return tuple(refused)


def _at(spark: SparkSession, path: str, version: int) -> DataFrame:
    return spark.read.format("delta").option("versionAsOf", version).load(path)
