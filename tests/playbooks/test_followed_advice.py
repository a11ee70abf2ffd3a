"""Errors that are neither Kafka's nor a table's damage: each fault, then its playbook as it is written, then the checker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.local.event_plan import Mix
from pipelines.lake.failpoints import VARIABLE
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import GOLD_HOURLY, SILVER
from tests.playbooks.conftest import Patient

pytestmark = [pytest.mark.playbooks, pytest.mark.faults, pytest.mark.timeout(1200)]

Make = Callable[[int], Patient]


def _up(sick: Patient, before: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run all layers to the end in a process of its own, whatever it ends with."""
    line = f"{before}{sys.executable} -m lakehouse up --trigger available-now --config {sick.case.config}"
    whole = {**os.environ, "PYTHONPATH": str(PROJECT), **environ}
    return subprocess.run(["bash", "-c", line], env=whole, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)


def test_unknown_error(patient: Make, tmp_path: Path) -> None:
    sick = patient(1500).with_settings(retries={"attempts": 2, "first_wait_seconds": 0.2})
    ended = _up(sick, **{VARIABLE: "silver.before_append:9:defect"})
    assert ended.returncode == 1, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert "RuntimeError (unknown: nobody has foreseen this error)" in last
    assert "playbooks/unknown-error.md" in last
    assert "Traceback" not in last

    saved = tmp_path / "saved"
    sick.follow("unknown-error", STATE=str(sick.case.folder), SAVED=str(saved))

    assert {"doctor.json", "status.json", "settings.yaml", "machine.txt"} <= {path.name for path in saved.iterdir()}
    assert "builtins.RuntimeError" in "".join(path.read_text() for path in saved.glob("errors/*"))
    assert not sick.broken_promises()


def test_environment(patient: Make) -> None:
    sick = patient(1500)
    ended = _up(sick, before="ulimit -n 100; ")
    assert ended.returncode == 1, ended.stderr
    assert "playbooks/environment.md" in ended.stderr.splitlines()[-1]

    sick.follow("environment")

    assert not sick.broken_promises()


def test_permission(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    log = Path(sick.path(SILVER)) / "_delta_log"
    log.chmod(0)
    sick.produce(500, 2)

    sick.follow("permission")

    assert log.stat().st_mode & 0o700 == 0o700
    assert not sick.broken_promises()


def test_table_contract(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    DeltaTable(sick.path(GOLD_HOURLY)).alter.set_table_properties({"delta.appendOnly": "true"})
    sick.produce(1500, 2, mix=Mix.clean())
    ended = _up(sick)
    assert ended.returncode == 1, ended.stderr
    assert "playbooks/table-contract.md" in ended.stderr.splitlines()[-1]

    sick.follow("table-contract", TABLE=str(GOLD_HOURLY), FOLDER=sick.path(GOLD_HOURLY))

    assert not sick.broken_promises()
