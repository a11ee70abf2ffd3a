"""D7: the daily batch is killed after each of its steps; the next run completes it, and one more finds nothing to do."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.tables import ADJUSTMENTS, GOLD_DAILY, GOLD_HOURLY, RECONCILIATION, TableName
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
    _killed_at(case, "after_evidence")
    assert _versions(case, *gold) == before
    assert DeltaTable(RECONCILIATION.path(case.settings)).to_pyarrow_table().num_rows > 0
    _killed_at(case, "after_hourly")
    assert _versions(case, *gold) == [before[0] + 1, before[1]]
    _killed_at(case, "after_daily")
    published = [before[0] + 1, before[1] + 1]  # the repaired hours were left alone
    assert _versions(case, *gold) == published

    done = case.run(*SCRIPT)
    assert done.returncode == 0, done.stderr
    again = _reconcile(spark, case)
    assert (again.was_final, again.differences, again.adjusted) == (True, {}, 0)
    assert _versions(case, *gold) == published
    # Late events among those 600 belong to other days, which the batch of this one leaves to the stream.
    run_to_end(spark, case.settings, ["gold"], threading.Event())
    assert case.verdicts()["I5"] == "holds"

    # The day is closed now: what comes later is added to its bill.
    case.produce(600, seed=200_000 + fault_seed)
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    _killed_at(case, "after_adjustments")
    booked = DeltaTable(ADJUSTMENTS.path(case.settings)).to_pyarrow_table().num_rows
    assert booked > 0
    evidence.fired("SIGKILL after the evidence, the hourly rows, the daily rows and the adjustments, one after the other")
    with evidence.recovery():
        done = case.run(*SCRIPT)
    assert done.returncode == 0, done.stderr
    last = _reconcile(spark, case)

    assert (last.differences, last.adjusted) == ({}, 0)
    assert DeltaTable(ADJUSTMENTS.path(case.settings)).to_pyarrow_table().num_rows == booked
    evidence.holds(case.verdicts_of_replay())
