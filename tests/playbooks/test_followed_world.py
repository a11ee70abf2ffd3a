"""The world around the lake: producers, clocks, disks and mounts; each fault, then its playbook as it is written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from lakehouse.local.event_plan import Mix
from pipelines.lake.tables import SILVER
from tests.faults.conftest import DAY
from tests.faults.evidence import Evidence
from tests.pipelines.conftest import event
from tests.playbooks.conftest import Patient

pytestmark = [pytest.mark.playbooks, pytest.mark.faults, pytest.mark.timeout(1200)]

Make = Callable[[int], Patient]
_DAY_SECONDS = 86_400
_DISK_MB = 48


@pytest.mark.case("M8")
def test_stale_data_then_late_events_clock_skew_and_bad_measures(patient: Make, evidence: Evidence) -> None:
    sick = patient(0)
    sick.produce(1500, 1, mix=Mix(late=0.1, skew=0.05))
    absurd = event(event_id="absurd", event_timestamp=f"{DAY:%FT%TZ}", response_bytes=2 * 10**10)
    sick.send(absurd)
    sick.run("bronze")
    assert "1,501 records wait" in sick.command("doctor").stdout

    sick.follow("stale-data")
    assert "1,501 records wait" not in sick.command("doctor").stdout
    delays = DeltaTable(sick.path(SILVER)).to_pyarrow_table(columns=["_arrival_delay_seconds"]).column(0)
    days = pc.max(delays).as_py() / _DAY_SECONDS
    assert days > 20
    evidence.fired(f"events up to {days:.0f} days late")
    assert "late_events: see playbooks/late-events.md" in sick.follow("late-events", DAY=f"{DAY:%F}").output
    assert "clock_skew: see playbooks/clock-skew.md" in sick.follow("clock-skew").output
    assert "absurd_measures: see playbooks/bad-measures.md" in sick.follow("bad-measures").output

    # The absurd event is none of the op ledger's.
    evidence.holds(sick.case.verdicts(others_send=True))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of some megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no file system can be mounted here, so no disk can be filled and none made read-only")
    yield folder
    # Lazily: a JVM of the tests may have a file of it open still.
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.case("S6", "S7")
def test_disk_full_then_object_store_outage(patient: Make, small_disk: Path, evidence: Evidence) -> None:
    sick = patient(0).with_settings(
        lake={"root": str(small_disk / "lake"), "checkpoints": str(small_disk / "checkpoints")},
        retries={"first_wait_seconds": 0.2, "longest_wait_seconds": 1.0},
    )
    sick.produce(1500, 1)
    sick.run()
    sick.produce(1500, 2)
    _fill(small_disk / "filler")
    full = sick.command("up", "--trigger", "available-now")
    assert full.returncode == 1, full.stderr
    assert "playbooks/disk-full.md" in full.stderr
    assert "disk-full" in sick.command("doctor").stdout
    evidence.loud("the disk of tables and checkpoints was filled: the driver retried, ended and named the playbook")
    (small_disk / "filler").unlink()

    evidence.recovered(sick.follow("disk-full", LAKE=str(small_disk)).recovery)
    assert not sick.broken_promises()

    sick.produce(500, 3)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        refused = sick.command("up", "--trigger", "available-now")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert refused.returncode == 1, refused.stderr
    assert "playbooks/object-store-outage.md" in refused.stderr
    assert "Traceback" not in refused.stderr
    evidence.loud("the mount became read-only: the driver ended at once and named the playbook")

    evidence.recovered(sick.follow("object-store-outage").recovery)
    evidence.holds(sick.case.verdicts())


def _fill(path: Path) -> None:
    """Write until the disk takes no byte more."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
