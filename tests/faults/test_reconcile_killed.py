"""D7: the daily batch is killed after each of its steps; the next run completes it, and one more finds nothing to do."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.tables import ADJUSTMENTS, CANDIDATES, GOLD_DAILY, GOLD_HOURLY, RECONCILIATION, SILVER, TableName
from pipelines.lake.views import BILL
from tests.faults.conftest import DAY, LakeCase
from tests.faults.evidence import Evidence

SCRIPT = ("batch/reconcile_gold.py", "--date", f"{DAY:%F}")


def _versions(case: LakeCase, *tables: TableName) -> list[int]:
    return [DeltaTable(table.path(case.settings)).version() for table in tables]


def _killed_at(case: LakeCase, point: str) -> None:
    killed = case.run(*SCRIPT, fail_at=f"reconcile.{point}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert f"killed at the failpoint reconcile.{point}" in killed.stderr


def _reconcile(spark: SparkSession, case: LakeCase) -> Outcome:
    return reconcile(spark, case.settings, Paths.of(case.settings), DAY.date(), datetime.now(UTC))


def _billed(spark: SparkSession, case: LakeCase) -> dict[str, int]:
    """What billing reads of the day."""
    daily, adjustments = (spark.read.format("delta").load(table.path(case.settings)) for table in (GOLD_DAILY, ADJUSTMENTS))
    bill = spark.sql(BILL.query, daily=daily, adjustments=adjustments)
    return {row["customer_id"]: row["event_count"] for row in bill.where(F.col("day") == F.lit(DAY.date())).collect()}


def _events_of_the_day(case: LakeCase) -> int:
    dates = DeltaTable(SILVER.path(case.settings)).to_pyarrow_table(columns=["_event_date"])["_event_date"].to_pylist()
    return int(dates.count(DAY.date()))


@pytest.mark.faults
@pytest.mark.case("D7")
def test_daily_batch_that_dies_after_any_step_is_completed_by_the_next(
    spark: SparkSession, lake_case: Callable[..., LakeCase], fault_seed: int, evidence: Evidence
) -> None:
    case = lake_case(2400)
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    case.produce(600, seed=100_000 + fault_seed)
    run_to_end(spark, case.settings, ["bronze", "silver"], threading.Event())

    gold = (GOLD_HOURLY, GOLD_DAILY)
    before = _versions(case, *gold)
    for point in ("after_evidence", "after_candidate", "after_audit"):
        _killed_at(case, point)
        assert _versions(case, *gold) == before
        assert _billed(spark, case) == {}
    assert DeltaTable(RECONCILIATION.path(case.settings)).to_pyarrow_table().num_rows > 0
    _killed_at(case, "after_hourly")
    assert _versions(case, *gold) == [before[0] + 1, before[1]]
    assert _billed(spark, case) == {}
    _killed_at(case, "after_daily")
    published = [before[0] + 1, before[1] + 1]  # the repaired hours were left alone
    assert _versions(case, *gold) == published
    bill = _billed(spark, case)
    assert sum(bill.values()) == _events_of_the_day(case)
    waiting = DeltaTable(CANDIDATES.path(case.settings)).to_pyarrow_table()
    assert dict(zip(waiting["customer_id"].to_pylist(), waiting["event_count"].to_pylist(), strict=True)) == bill

    done = case.run(*SCRIPT)
    assert done.returncode == 0, done.stderr
    assert DeltaTable(CANDIDATES.path(case.settings)).to_pyarrow_table().num_rows == 0
    again = _reconcile(spark, case)
    assert (again.was_final, again.differences, again.adjusted, again.audit) == (True, {}, 0, None)
    assert _versions(case, *gold) == published
    assert _billed(spark, case) == bill
    # Late events among those 600 belong to other days, which the batch of this one leaves to the stream.
    run_to_end(spark, case.settings, ["gold"], threading.Event())
    assert case.verdicts()["I5"] == "holds"

    # The day is closed now: what comes later is added to its bill.
    case.produce(600, seed=200_000 + fault_seed)
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    _killed_at(case, "after_audit")
    assert _billed(spark, case) == bill
    _killed_at(case, "after_adjustments")
    booked = DeltaTable(ADJUSTMENTS.path(case.settings)).to_pyarrow_table().num_rows
    assert booked > 0
    assert sum(_billed(spark, case).values()) == _events_of_the_day(case)
    _killed_at(case, "after_publishing")
    evidence.fired("SIGKILL after the evidence, candidate, audit, hourly rows, daily rows, adjustments, one after the other")
    with evidence.recovery():
        done = case.run(*SCRIPT)
    assert done.returncode == 0, done.stderr
    last = _reconcile(spark, case)

    assert (last.differences, last.adjusted) == ({}, 0)
    assert DeltaTable(ADJUSTMENTS.path(case.settings)).to_pyarrow_table().num_rows == booked
    evidence.holds(case.verdicts_of_replay())
