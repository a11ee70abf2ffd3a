"""Puts a rebuild in the place of the live tables: one commit in each, then the ledger, which has to say the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from lakehouse.operations.definitions import definitions
from lakehouse.operations.rebuild.plan import RebuildPlan
from lakehouse.operations.rebuild.rebuild import KEYS, STAMPS, Difference, content, letters_of_records, open_rows, rebuilt_rows
from lakehouse.operations.rollback.rollback import letter_state
from pipelines.gold.schema import FINAL
from pipelines.lake import failpoints
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.errors import UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.ledger.voids import EVENTS, void_row
from pipelines.lake.ledger_row import COUNTS, Kind, LedgerRow
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.tables import DLQ, GOLD_DAILY, GOLD_HOURLY, SILVER, TableName
from pipelines.runtime import delta
from pipelines.silver.attempts import find_attempts, settle

_LOST = "has_lost_files"
_FATES = ("inserted", "replaced", "duplicate", "conflict", "tombstone", "late")


@dataclass(frozen=True)
class Swapped:
    """Tables that were written, with their new versions; dead letters that were added, closed and removed; ledger rows written.

    `has_lost_files`: a table was written whose old files cannot be read, so that nobody can follow its change feed over that.
    """

    versions: dict[TableName, int]
    letters_added: int = 0
    letters_closed: int = 0
    letters_removed: int = 0
    ledger_rows: int = 0
    has_lost_files: bool = False


def swap(
    spark: SparkSession, settings: Settings, plan: RebuildPlan, found: Sequence[Difference], *, run_id: str, now: datetime
) -> Swapped:
    """Make the live tables equal to the rebuild. Each step is idempotent; a run that died is completed by the next.

    Table ids stay, so checkpoints stay valid: Silver's have read no further than the rebuild. Gold's stream sees Silver's
    new rows in the change feed. Raises UsageError where a live table has changed since the plan was made.
    """
    with lease_of(settings, plan.layer, job="rebuild", run=run_id).hold():
        return _swap(spark, settings, plan, found, run_id=run_id, now=now)


def _swap(
    spark: SparkSession, settings: Settings, plan: RebuildPlan, found: Sequence[Difference], *, run_id: str, now: datetime
) -> Swapped:
    _refuse_changed(spark, settings, plan)
    if plan.layer == SILVER.layer and SILVER in plan.versions and DLQ in plan.versions:
        # Before the tables change: what a batch left that died is counted now, and not once more by the next stream.
        attempts = find_attempts(SILVER.layer, SILVER.path(settings), DLQ.path(settings))
        settle(Ledger(settings), SILVER.layer, attempts, None)
    versions, passed, defined = {}, False, definitions(settings)
    for one in found:
        path = one.table.path(settings)
        delta.ensure_table(spark, defined[one.table], path)
        delta.ensure_columns(spark, defined[one.table], path)
        if one.table == DLQ:
            continue
        if not one.is_none:
            versions[one.table] = _overwrite(spark, settings, plan, one, run_id=run_id, now=now)
            failpoints.reach("rebuild.after_swap")
        if _pass_lost_files(spark, path, now):
            passed = True
            if one.table in versions:
                versions[one.table] = delta.current_version(spark, path)
    if plan.layer != "silver":
        _record_gold(spark, settings, plan, run_id, now)
        return Swapped(versions, has_lost_files=passed)
    removed = _remove_strays(spark, settings, plan)
    added, closed = _merge_letters(spark, settings, plan, run_id)
    failpoints.reach("rebuild.after_letters")
    rows = _correct_ledger(spark, settings, plan, run_id, now)
    return Swapped(versions, added, closed, removed, rows, has_lost_files=passed)


def _record_gold(spark: SparkSession, settings: Settings, plan: RebuildPlan, run_id: str, now: datetime) -> None:
    """Note up to which version of Silver Gold stands: `lakehouse checkpoint rebuild gold` goes on from there."""
    row = BatchRow(
        job=plan.layer,
        generation=f"{Kind.REBUILD.prefix}{run_id}",
        batch_id=0,
        offsets={"silver_version": [0, plan.source_version]},
        versions={str(table): delta.current_version(spark, table.path(settings)) for table in (GOLD_HOURLY, GOLD_DAILY)},
        started_at=now,
    )
    Ledger(settings).record(row)


def _refuse_changed(spark: SparkSession, settings: Settings, plan: RebuildPlan) -> None:
    for table, version in plan.versions.items():
        current = delta.current_version(spark, table.path(settings))
        if current != version:
            msg = (
                f"{table} went from version {version} to {current} while it was rebuilt: something still writes to it; stop its "
                "stream, then run the rebuild again."
            )
            raise UsageError(msg)


def _overwrite(
    spark: SparkSession, settings: Settings, plan: RebuildPlan, found: Difference, *, run_id: str, now: datetime
) -> int:
    table, path = found.table, found.table.path(settings)
    rows = rebuilt_rows(spark, settings, plan, table)
    rows = _with_stamps(table, rows, open_rows(spark, table, path) if found.readable else rows.limit(0), now)
    if table == GOLD_DAILY:
        issued = spark.read.format("delta").load(path).where(F.col("billing_status") == FINAL)
        rows = rows.unionByName(issued, allowMissingColumns=True)
    said = {"run": run_id, "source_version": plan.source_version, _LOST: not found.readable}
    rows.write.format("delta").mode("overwrite").option("userMetadata", json.dumps({"rebuild": said})).save(path)
    return delta.current_version(spark, path)


def _pass_lost_files(spark: SparkSession, path: str, now: datetime) -> bool:
    """Make a commit after one of a rebuild that removed files which cannot be read: there whoever follows the changes begins.

    Returns whether there is such a commit. By what the log says, not by what this run did: the one that wrote it may have died.
    """
    commits = newest_commits(absolute(path), delta.current_version(spark, path), at_most=2)
    newest = [bool(commit.note("rebuild").get(_LOST)) for commit in commits]
    if newest[0]:
        spark.sql(f"ALTER TABLE delta.`{absolute(path)}` SET TBLPROPERTIES ('lakehouse.rebuilt' = '{now.isoformat()}')")
    return any(newest)


def _with_stamps(table: TableName, rows: DataFrame, live: DataFrame, now: datetime) -> DataFrame:
    """Give rows that the live table has the live row's stamps, so that they do not look as if they had come now.

    Columns that somebody added to the live table are theirs: they stay with their keys.
    """
    keys, stamps = list(KEYS[table]), list(STAMPS[table])
    names = content(table, rows.columns)
    values = [F.col(name) if name in live.columns else F.lit(None) for name in names]
    theirs = [f"`{name}`" for name in live.columns if name not in rows.columns]
    known = live.dropDuplicates(keys).select(
        *keys, *theirs, F.xxhash64(*values).alias("_known"), F.struct(*stamps).alias("_stamps")
    )
    joined = rows.join(known, on=keys, how="left")
    same = F.col("_known") == F.xxhash64(*names)
    given = {
        name: F.when(same, F.col(f"_stamps.{name}")).otherwise(F.col(name) if name == "silver_version" else F.lit(now))
        for name in stamps
    }
    return joined.withColumns(given).select(*rows.columns, *theirs)


def _remove_strays(spark: SparkSession, settings: Settings, plan: RebuildPlan) -> int:
    """Remove letters that only another writer can have made: no record of Bronze stands behind them, or another letter does.

    Of several for one record the one stays that says most about it: discarded, replayed, open.
    """
    path, keys = DLQ.path(settings), list(KEYS[DLQ])
    letters = spark.read.format("delta").load(path)
    status = F.col("_status")
    first = Window.partitionBy(*keys).orderBy(status != "discarded", status != "replayed", "_dead_lettered_at")
    kept = letters_of_records(spark, plan, letters).withColumn("_copy", F.row_number().over(first)).where("_copy = 1")
    kept = kept.select(letters.columns)
    counts = letters.groupBy(*keys).agg(F.count(F.lit(1)).alias("_copies"))
    known = kept.select(*keys, F.lit(True).alias("_known"))
    strays = counts.join(known, on=keys, how="left").where("_copies > 1 OR _known IS NULL").select(*keys)
    if strays.isEmpty():
        return 0
    put = kept.join(strays, on=keys, how="left_semi").withColumn("_anew", F.lit(True))
    source = put.unionByName(strays.withColumn("_anew", F.lit(False)), allowMissingColumns=True)
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(source.alias("s"), f"{_same_letter()} AND NOT s._anew")
        .whenMatchedDelete()
        .whenNotMatchedInsert(condition="s._anew", values={name: f"s.`{name}`" for name in letters.columns})
    )
    with delta.commits_are_ours(spark, "rebuild"):
        result = merge.execute().collect()[0]
    return int(result["num_deleted_rows"]) - int(result["num_inserted_rows"])


def _same_letter() -> str:
    return " AND ".join(f"t.{name} = s.{name}" for name in KEYS[DLQ])


def _merge_letters(spark: SparkSession, settings: Settings, plan: RebuildPlan, run_id: str) -> tuple[int, int]:
    """Add dead letters that only the rebuild has, close open ones whose records pass now, open replayed ones that do not."""
    path = DLQ.path(settings)
    live = spark.read.format("delta").load(path)
    rebuilt = spark.read.format("delta").load(DLQ.path(plan.settings(settings)))
    added = rebuilt.join(live.select(*KEYS[DLQ]), on=list(KEYS[DLQ]), how="left_anti").count()
    merge = (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(rebuilt.alias("s"), _same_letter())
        .whenMatchedUpdate(condition="t._status = 'replayed'", set=letter_state(live.columns, "open"))
        # By name, not all: a column that somebody added to the table is theirs.
        .whenNotMatchedInsert(values={name: f"s.`{name}`" for name in rebuilt.columns})
        .whenNotMatchedBySourceUpdate(
            condition="t._status = 'open'", set=letter_state(live.columns, "replayed", f"rebuild-{run_id}")
        )
    )
    with delta.commits_are_ours(spark, "rebuild"):
        result = merge.execute().collect()[0]
    return added, int(result["num_updated_rows"])


def _correct_ledger(spark: SparkSession, settings: Settings, plan: RebuildPlan, run_id: str, now: datetime) -> int:
    """Make the ledger say what the rebuild says, where it differs: undo Silver's batches and add the rebuild as one."""
    ledger = Ledger(settings)
    batches = ledger.standing(SILVER.layer)
    rebuilt = Ledger(plan.settings(settings))
    counted = _sums(rebuilt.batches(SILVER.layer))
    events, letters = (spark.read.format("delta").load(table.path(settings)).count() for table in (SILVER, DLQ))
    known = _sums(batches)
    # Retention removes closed ones, which stay counted.
    added = max(0, letters - _sums(ledger.batches(SILVER.layer))["dead_lettered"])
    copies = counted["duplicate"] + counted["replaced"]
    if (events, copies, counted["tombstone"], 0) == (
        known["inserted"],
        known["duplicate"] + known["replaced"],
        known["tombstone"],
        added,
    ):
        return _record_stamps(spark, settings, run_id, batches)
    fates = {**{name: counted[name] for name in _FATES}, "inserted": events, "dead_lettered": added}
    accounted = sum(fates[name] for name in ("inserted", "replaced", "duplicate", "tombstone", "dead_lettered"))
    row = BatchRow(
        job=SILVER.layer,
        generation=f"{Kind.REBUILD.prefix}{run_id}",
        batch_id=0,
        offsets={str(p): [first, end] for p, (first, end) in rebuilt.positions(SILVER.layer).items()},
        rows_read=counted["rows_read"],
        already_present=counted["rows_read"] - accounted,
        versions={str(SILVER): delta.current_version(spark, SILVER.path(settings))},
        started_at=now,
    )
    row = replace(row, **fates)  # type: ignore[arg-type]  # counts by their names
    generations = sorted({batch.generation for batch in batches})
    voids = [void_row([batch for batch in batches if batch.generation == name], EVENTS) for name in generations]
    ledger.append([*voids, row.committed()])
    return len(voids) + 1


def _record_stamps(spark: SparkSession, settings: Settings, run_id: str, batches: Sequence[LedgerRow]) -> int:
    """Note that the rebuild wrote rows that the ledger counts already: to its readers rows after its last batch are not there.

    Taken from the table, not from this run: the one that wrote them may have died.
    """
    if not batches:
        return 0
    path, last = SILVER.path(settings), max(batch.started_at for batch in batches)
    later = spark.read.format("delta").load(path).where(F.col("_processed_at") > F.lit(last))
    newest = later.agg(F.max("_processed_at")).collect()[0][0]
    if newest is None:
        return 0
    row = BatchRow(
        job=SILVER.layer,
        generation=f"{Kind.REBUILD.prefix}{run_id}",
        batch_id=0,
        offsets={},
        versions={str(SILVER): delta.current_version(spark, path)},
        started_at=newest.replace(tzinfo=UTC),
    )
    Ledger(settings).record(row)
    return 1


def _sums(rows: Sequence[LedgerRow]) -> dict[str, int]:
    return {name: sum(int(getattr(row, name)) for row in rows) for name in COUNTS}
