"""Puts a rebuild in the place of the live tables: one commit in each, then the ledger, which has to say the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.operations.definitions import definitions
from lakehouse.operations.rebuild.dead_letters import merge_letters, remove_strays
from lakehouse.operations.rebuild.ledger import correct_ledger, record_gold
from lakehouse.operations.rebuild.plan import RebuildPlan
from lakehouse.operations.rebuild.rebuild import KEYS, STAMPS, Difference, content, open_rows, rebuilt_rows
from pipelines.gold.schema import FINAL
from pipelines.lake import failpoints
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.marks import LOST_FILES
from pipelines.lake.errors import UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.tables import DLQ, GOLD_DAILY, SILVER, TableName
from pipelines.runtime import delta
from pipelines.silver.attempts import find_attempts, settle


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
        record_gold(spark, settings, plan, run_id, now)
        return Swapped(versions, has_lost_files=passed)
    removed = remove_strays(spark, settings, plan)
    added, closed = merge_letters(spark, settings, plan, run_id)
    failpoints.reach("rebuild.after_letters")
    rows = correct_ledger(spark, settings, plan, run_id, now)
    return Swapped(versions, added, closed, removed, rows, has_lost_files=passed)


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
    said = {"run": run_id, "source_version": plan.source_version, LOST_FILES: not found.readable}
    rows.write.format("delta").mode("overwrite").option("userMetadata", json.dumps({"rebuild": said})).save(path)
    return delta.current_version(spark, path)


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


def _pass_lost_files(spark: SparkSession, path: str, now: datetime) -> bool:
    """Make a commit after one of a rebuild that removed files which cannot be read: there whoever follows the changes begins.

    Returns whether there is such a commit. By what the log says, not by what this run did: the one that wrote it may have died.
    """
    commits = newest_commits(absolute(path), delta.current_version(spark, path), at_most=2)
    newest = [bool(commit.note("rebuild").get(LOST_FILES)) for commit in commits]
    if newest[0]:
        spark.sql(f"ALTER TABLE delta.`{absolute(path)}` SET TBLPROPERTIES ('lakehouse.rebuilt' = '{now.isoformat()}')")
    return any(newest)
