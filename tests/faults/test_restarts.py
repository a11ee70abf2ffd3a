"""D8: the driver of all streams is killed ten times at random moments under load; nothing is lost or doubled."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from lakehouse.local.demo_figures import read_conservation
from pipelines.lake.ledger.ledger import Ledger
from tests.faults.conftest import DAY, PATIENCE, LakeCase
from tests.faults.evidence import Evidence
from tests.faults.live import load, until, up

KILLS = 10


def _batches(case: LakeCase) -> int:
    return sum(len(Ledger(case.settings).since(job, DAY)) for job in ("bronze", "silver", "gold"))


def _kill_at_work(case: LakeCase, wait: float) -> None:
    """Kill a driver `wait` seconds after its second batch: one that never gets to a batch proves nothing."""
    before = _batches(case)
    with up(case) as driver:
        until(lambda: _batches(case) >= before + 2 or not driver.is_running, 120)
        assert driver.is_running, driver.said[-2000:]
        time.sleep(wait)
        driver.kill()
        assert driver.process.returncode == -signal.SIGKILL, driver.said[-2000:]


@pytest.mark.faults
@pytest.mark.case("D8")
@pytest.mark.timeout(3600)
def test_ten_kills_at_random_moments_under_load(
    lake_case: Callable[[int], LakeCase], fault_seed: int, evidence: Evidence
) -> None:
    case, chance = lake_case(0), random.Random(fault_seed)
    with load(case, fault_seed, rate=1000):
        for _ in range(KILLS):
            _kill_at_work(case, chance.uniform(0, 3))
    evidence.fired(f"{KILLS} times SIGKILL after two batches or more of new work")
    with evidence.recovery(), up(case, "--trigger", "available-now") as last:
        assert last.process.wait(300 * PATIENCE) == 0, last.said[-2000:]

    evidence.conserves(read_conservation(case.settings, case.folder / "op_ledger"))
    evidence.holds(case.verdicts_of_replay())
