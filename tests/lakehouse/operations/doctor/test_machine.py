"""Disks without room, and leases that are not given back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lakehouse.operations.doctor.facts import Disk, Facts
from lakehouse.operations.doctor.machine import check_machine
from lakehouse.operations.doctor.reading import _disks
from lakehouse.operations.doctor.reading_checkpoints import seen_from_here
from pipelines.lake.lease.protocol import Holder
from pipelines.lake.settings_sources import load_settings
from tests.lakehouse.operations.doctor.conftest import NOW, held, row

GIB = 2**30


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (Disk("d", 100 * GIB, 10 * GIB), None),
        (Disk("d", 100 * GIB, 10 * GIB - 1), ("disk-low", "warning")),
        (Disk("d", 4 * GIB, GIB - 1), ("disk-low", "warning")),
        (Disk("d", 4 * GIB, GIB // 5), ("disk-full", "critical")),
        (Disk("d", 100 * GIB, GIB), ("disk-full", "critical")),
    ],
)
def test_little_room_is_said_before_there_is_none(disk: Disk, expected: tuple[str, str] | None, sound: Facts) -> None:
    found = [(one.id, one.severity) for one in check_machine(replace(sound, disks=(disk,)))]
    assert found == ([expected] if expected else [])


def test_disks_of_archive_and_spill_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is made a disk of its own."""
    names = ["lake", "checkpoints", "state", "archive", "spill", "more"]
    for name in names:
        (tmp_path / name).mkdir()
    overrides = {
        "lake.root": str(tmp_path / "lake"),
        "lake.checkpoints": str(tmp_path / "checkpoints"),
        "lake.state_dir": str(tmp_path / "state"),
        "retention.archive": str(tmp_path / "archive"),
        "spark": {"spark.local.dir": f"{tmp_path / 'spill'}, {tmp_path / 'more'}"},
    }
    settings = load_settings(None, environ={}, overrides=overrides)
    real = Path.stat

    def stat(path: Path, **flags: bool) -> os.stat_result:
        found = list(real(path, **flags))
        found[2] = names.index(path.name)
        return os.stat_result(found)

    assert [disk.path for disk in _disks(settings)] == [str(tmp_path / "lake")]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        found = [Path(disk.path).name for disk in _disks(settings)]
    assert found == names


def test_lease_without_a_batch_for_longer_than_others_wait_is_suspicious(sound: Facts) -> None:
    leased = replace(sound, leases={"silver": held()})
    assert list(check_machine(leased)) == []
    old = [row("silver", 0, {"0": [0, 20]}, committed_at=NOW - timedelta(minutes=6))]
    (found,) = check_machine(replace(leased, rows={"silver": old}))
    assert (found.id, found.severity, found.confidence) == ("lease-held", "warning", "possible")
    assert "no batch of silver was committed for 0:06:00" in found.evidence
    assert found.commands[0] == "kill -TERM 4711"


def test_lease_of_a_stopped_process_is_critical(sound: Facts) -> None:
    (found,) = check_machine(replace(sound, leases={"silver": held(is_stopped=True)}))
    assert (found.severity, found.confidence, found.commands[0]) == ("critical", "certain", "kill -CONT 4711")


def test_stopped_process_is_seen_and_one_elsewhere_is_unknown() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        holder = Holder("silver", "g", child.pid, socket.gethostname())
        assert seen_from_here(holder) is False
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        assert seen_from_here(holder) is True
        assert seen_from_here(replace(holder, host="elsewhere")) is None
    finally:
        child.kill()
        child.communicate()
    assert seen_from_here(holder) is None
