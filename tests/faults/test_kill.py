"""Each job's driver is killed with SIGKILL between two durable steps; the next run completes what was begun."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from pipelines.common.failpoints import POINTS
from tests.faults.conftest import LakeCase

JOBS = {
    "bronze": ("pipelines/bronze/bronze_ingestion.py", "--trigger", "available-now"),
    "silver": ("pipelines/silver/silver_processing.py", "--trigger", "available-now"),
    "gold": ("pipelines/gold/gold_aggregation.py", "--trigger", "available-now"),
    "reconcile": ("batch/reconcile_gold.py", "--date", "2026-01-28"),
}


@pytest.mark.parametrize(
    "kills",
    [("bronze.after_append:2", "silver.after_append:2", "gold.after_hourly:1", "reconcile.after_hourly:1")],
)
def test_killed_jobs_lose_nothing_and_double_nothing(lake_case: Callable[[int], LakeCase], kills: tuple[str, ...]) -> None:
    case = lake_case(6000)
    for kill in kills:
        assert kill.partition(":")[0] in POINTS
        script, *args = JOBS[kill.partition(".")[0]]
        killed = case.run(script, *args, fail_at=kill)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        restarted = case.run(script, *args)
        assert restarted.returncode == 0, restarted.stderr

    verdicts = case.verdicts()

    assert verdicts.pop("I6") == "not checked"  # no replay here; see test_replay.py
    assert set(verdicts.values()) == {"holds"}, verdicts
