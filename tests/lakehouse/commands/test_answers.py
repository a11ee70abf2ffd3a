"""Every command that only looks answers within two seconds: an operator waits for it, often on a machine in trouble."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lakehouse.local.kafka_admin import ensure_topic
from pipelines.gold.gate.results import Gate, QualityStore
from pipelines.lake.resources import PROJECT
from tests.audits import BLOCKS, audit
from tests.lakehouse.operations.checkpoints.conftest import CheckpointLake

LIMIT = 2.0
LOOP_SECONDS = 0.3
"""CPU time of the loop in `_slowness` on a slow machine, on which the limit holds."""
LOOKING = [
    "status",
    "status --json",
    "doctor",
    "breaker show",
    "quality show",
    "checkpoint list",
    "checkpoint show silver",
    "checkpoint verify silver",
    "dlq list",
    "dlq show 0:5",
    "dlq stats",
    "archive list",
    "archive verify",
    "schema check",
    "kafka status",
]


@pytest.fixture
def config(hand_lake: Any, broker: Any) -> Path:
    """A small lake with a checkpoint, whose topic a broker has."""
    hand_lake.write()
    QualityStore(hand_lake.settings).record(audit(Gate.REFUSED, BLOCKS))
    ensure_topic(broker.bootstrap_servers, "answers", 2)
    kafka = {"bootstrap_servers": broker.bootstrap_servers, "topic": "answers"}
    lake = CheckpointLake(hand_lake.folder, kafka, more={"log": {"level": "error"}})
    lake.checkpoint("silver", [(0, -1)])
    return Path(lake.config())


def _answer(words: list[str], config: Path, output: Path) -> tuple[float, float]:
    """Seconds of CPU, and by the clock, of a process that ran the command; whatever it says of the lake."""
    began = time.monotonic()
    with output.open("wb") as file:
        line = [sys.executable, "-m", "lakehouse", *words, "--config", str(config)]
        # Not waited for by `subprocess`, which would not tell what it used.
        process = subprocess.Popen(line, stdout=file, stderr=file, cwd=PROJECT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = output.read_text()
    assert process.returncode in (0, 1, 3), said
    assert "Traceback" not in said
    return used.ru_utime + used.ru_stime, time.monotonic() - began


def _slowness() -> float:
    """How much longer than `LOOP_SECONDS` this machine takes just now for a loop, at least 1: there the limit is for more."""
    began = time.process_time()
    sum(number * number % 7 for number in range(2_000_000))
    return max(1.0, (time.process_time() - began) / LOOP_SECONDS)


def test_every_command_that_only_looks_takes_less_than_two_seconds(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    took: dict[str, tuple[float, float]] = {}
    limit = LIMIT * _slowness()
    for command in LOOKING:
        # By its own CPU time, which other tests beside it hardly change; what they do change, a second try shows.
        for _ in range(2):
            took[command] = min(took.get(command, (limit, limit)), _answer(command.split(), config, tmp_path / "said"))
            if took[command][0] < limit:
                break
    with capsys.disabled():
        lines = [f"{name:<26} {cpu:5.2f} s of CPU, {clock:5.2f} s by the clock" for name, (cpu, clock) in took.items()]
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert not [name for name, (cpu, _) in took.items() if cpu >= limit]
