"""Disks that are full, and disks that may not be written: a live driver whose tables, checkpoints and spill have one each."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pyspark.sql import SparkSession

from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.lake.errors import EXIT_FAILURE
from tests.faults.conftest import LakeCase, make_case
from tests.faults.disks import Disk
from tests.faults.evidence import Evidence
from tests.faults.live import Child, await_no_lag, load, produce, read_so_far, until, up

pytestmark = pytest.mark.faults

FULL = re.compile(r"stream failed, starting it again.*cause=(ENOSPC|No space left on device|DiskErrorException)")
REFUSED = re.compile(r"lakehouse: Stream \w+ failed.*\(permanent: access is refused\).*see playbooks/")


@dataclass(frozen=True)
class Machine:
    """A driver that runs, and the disks it writes to."""

    case: LakeCase
    driver: Child
    disks: dict[str, Disk]


@pytest.fixture(scope="module")
def machine(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("disks")
    with ExitStack() as stack:
        # Not below pytest's folder: a run that is killed leaves its mounts, and the next ones could not tidy up.
        mounts = Path(stack.enter_context(TemporaryDirectory(prefix="lakehouse-disks-")))
        disks = {name: stack.enter_context(Disk(mounts / name)) for name in ("tables", "checkpoints", "spill")}
        case = make_case(
            folder,
            broker.bootstrap_servers,
            lake={"root": str(mounts / "tables" / "lake"), "checkpoints": str(mounts / "checkpoints" / "streams")},
            gold={"trigger": "1 second"},
            # Longer than the disks are full here.
            retries={"attempts": 50, "longest_wait_seconds": 3.0},
            spark={"spark.driver.memory": "1g", "spark.master": "local[2]", "spark.local.dir": str(mounts / "spill")},
        )
        driver = stack.enter_context(up(case))
        yield Machine(case, driver, disks)


@pytest.mark.case("S6")
@pytest.mark.parametrize("what", ["tables", "checkpoints", "spill"])
def test_full_disk(machine: Machine, what: str, fault_seed: int, evidence: Evidence) -> None:
    case, driver, disk = machine.case, machine.driver, machine.disks[what]
    with load(case, fault_seed * 10 + len(what), rate=200) as events:
        before = read_so_far(case.settings, "silver")
        until(lambda: read_so_far(case.settings, "silver") > before, 120)
        said = len(driver.said)

        def failed() -> re.Match[str] | None:
            # What a writer gives back when it fails is taken again.
            disk.fill()
            return FULL.search(driver.said, said)

        until(lambda: failed() and len(FULL.findall(driver.said, said)) > 1, 90)
        causes = sorted(set(FULL.findall(driver.said, said)))
        evidence.fired(f"disk of the {what} full: streams were started again for {', '.join(causes)}")
        assert disk.free_bytes == 0
        # Nothing torn is visible: what the tables show now is whole, though not all of it is there yet.
        meanwhile = case.verdicts()
        assert (meanwhile["I7"], meanwhile["I2"], meanwhile["I8"]) == ("holds", "holds", "holds")
        disk.clear()
        with evidence.recovery():
            events.end()
            await_no_lag(case.settings, 90)

    assert driver.is_running, driver.said[-2000:]
    evidence.holds(case.verdicts())


@pytest.mark.case("S7")
def test_disk_that_may_not_be_written(machine: Machine, spark: SparkSession, fault_seed: int, evidence: Evidence) -> None:
    case, driver, disk = machine.case, machine.driver, machine.disks["tables"]
    with load(case, fault_seed + 7, rate=100) as events:
        until(lambda: disk.remount("ro"), 60, poll=0.01)
        until(lambda: not driver.is_running, 90)
        events.end()
    assert driver.process.returncode == EXIT_FAILURE
    last = driver.said.strip().splitlines()[-1]
    assert REFUSED.search(last), last
    assert "Traceback" not in driver.said[-2000:]
    evidence.loud("the tables' disk became read-only under the streams: the driver ended by name with code 1")

    assert disk.remount("rw")
    # No permission from the beginning: the checkpoints' disk.
    assert machine.disks["checkpoints"].remount("ro")
    with up(case, "--trigger", "available-now") as refused:
        assert refused.process.wait(120) == EXIT_FAILURE
    last = refused.said.strip().splitlines()[-1]
    assert REFUSED.search(last), last
    assert machine.disks["checkpoints"].remount("rw")
    produce(case, fault_seed + 8, 200)
    with evidence.recovery():
        run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    evidence.holds(case.verdicts())
