"""D13: the driver's heap is too small for the batch that it planned; it ends by name, and goes on with more memory."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.faults.conftest import PATIENCE, LakeCase
from tests.faults.driver import Driver
from tests.faults.evidence import Evidence

TINY = {"spark.driver.memory": "200m", "spark.testing.reservedMemory": "1000000", "spark.master": "local[2]"}
"""Less than Spark starts with by itself: it would refuse before a batch runs."""


@pytest.mark.faults
@pytest.mark.case("D13")
@pytest.mark.timeout(400 * PATIENCE)
def test_driver_without_memory_ends_by_name_and_goes_on_with_more(
    lake_case: Callable[..., LakeCase], fault_seed: int, evidence: Evidence
) -> None:
    case = lake_case(0, bronze={"max_offsets_per_trigger": 500_000})
    case.produce(150_000, seed=fault_seed)
    driver = Driver(case, fault_seed, environ={"LAKEHOUSE__SPARK": json.dumps(TINY)})
    driver.start("--trigger", "available-now")
    try:
        code = driver.dies(150)
    finally:
        driver.end()
    assert code == 1, driver.said()
    said = driver.log.read_text(errors="replace")
    assert "OutOfMemoryError" in said
    [sentence] = [line for line in said.splitlines() if line.startswith("lakehouse: ")]
    assert "memory is exhausted" in sentence, driver.said()
    assert "playbooks/spark-crash.md" in sentence
    # The same for the layer: Bronze with all records at once, or Silver when it reads them.
    assert any(driver.planned(job) == driver.committed(job) + 1 for job in ("bronze", "silver"))
    evidence.loud("a heap of 200 MB for a batch of 150,000 records: exit code 1, OutOfMemoryError and the playbook named")

    with evidence.recovery():
        driver.environ = {}
        driver.start("--trigger", "available-now")
        assert driver.dies(200) == 0, driver.said()
    evidence.holds(case.verdicts())
