"""D8: the driver of all streams is killed ten times at random moments under load; nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lakehouse.local.demo_figures import read_conservation
from lakehouse.local.event_plan import ProducePlan
from lakehouse.local.producer import produce_events
from pipelines.common.ledger import Ledger
from tests.faults.conftest import COMMAND, DAY, PATIENCE, PROJECT, LakeCase
from tests.faults.evidence import Evidence

KILLS = 10
PER_ROUND = 3000


def _up(case: LakeCase, log: Path, *flags: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [*COMMAND, "up", "--config", str(case.config), *flags],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


@contextmanager
def _load(case: LakeCase, seed: int) -> Iterator[None]:
    """Events come all the while, at a rate that the streams can follow."""
    stop = threading.Event()

    def produce() -> None:
        for part in range(1000):
            if stop.is_set():
                return
            plan = ProducePlan(count=PER_ROUND, seed=seed + part, rate=1000)
            produce_events(case.settings, plan, case.folder / "op_ledger", stop=stop)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _batches(case: LakeCase) -> int:
    return sum(len(Ledger(case.settings).since(job, DAY)) for job in ("bronze", "silver", "gold"))


@pytest.mark.faults
@pytest.mark.case("D8")
@pytest.mark.timeout(3600)
def test_ten_kills_at_random_moments_under_load(
    lake_case: Callable[[int], LakeCase], fault_seed: int, evidence: Evidence
) -> None:
    case, chance = lake_case(0), random.Random(fault_seed)
    log = case.folder / "up.log"
    with _load(case, fault_seed * 1000):
        for kill in range(KILLS):
            before, driver = _batches(case), _up(case, log)
            deadline = time.monotonic() + 120 * PATIENCE
            # Not before it has done something: a driver that never gets to a batch proves nothing.
            while _batches(case) < before + 2:
                assert driver.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, f"no progress after kill {kill}"
                time.sleep(0.1)
            time.sleep(chance.uniform(0, 3))
            os.killpg(driver.pid, signal.SIGKILL)
            assert driver.wait() == -signal.SIGKILL
    evidence.fired(f"{KILLS} times SIGKILL after two batches or more of new work")
    with evidence.recovery():
        last = _up(case, log, "--trigger", "available-now")
        assert last.wait(300 * PATIENCE) == 0, log.read_text()[-2000:]

    evidence.conserves(read_conservation(case.settings, case.folder / "op_ledger"))
    evidence.holds(case.verdicts_of_replay())
