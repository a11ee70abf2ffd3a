"""A driver killed with SIGKILL between two durable steps, of many in test_driver.py the one that is quick to show."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession

from lakehouse.operations.streams import STREAMS, run_to_end
from tests.faults.conftest import LakeCase
from tests.faults.evidence import Evidence


@pytest.mark.case("D4")
def test_killed_job_loses_nothing_and_doubles_nothing(
    spark: SparkSession, lake_case: Callable[..., LakeCase], evidence: Evidence
) -> None:
    case = lake_case(3000)
    run_to_end(spark, case.settings, ["bronze"], threading.Event())
    script = ("pipelines/silver/silver_processing.py", "--trigger", "available-now")
    killed = case.run(*script, fail_at="silver.after_append:2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "killed at the failpoint silver.after_append" in killed.stderr
    evidence.fired("SIGKILL at silver.after_append")

    run_to_end(spark, case.settings, list(STREAMS), threading.Event())

    evidence.holds(case.verdicts())
