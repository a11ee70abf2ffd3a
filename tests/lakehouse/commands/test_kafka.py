"""`lakehouse kafka start|stop|status` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer

from lakehouse.local.kafka_process import command_line_of
from lakehouse.local.kafka_state import running_broker


def kafka(command: str, config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lakehouse", "kafka", command, "--config", str(config), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "local.yaml"
    path.write_text(f"kafka: {{topic: clicks, partitions: 2}}\nlake: {{state_dir: '{tmp_path / 'state'}'}}\n")
    return path


def test_broker_outlives_the_command_and_stops_by_command(config: Path, tmp_path: Path) -> None:
    absent = kafka("status", config)
    assert (absent.returncode, absent.stdout) == (1, "")
    assert absent.stderr == "Kafka is not running; start it with `lakehouse kafka start`.\n"

    started = kafka("start", config)
    try:
        assert started.returncode == 0, started.stderr
        state = running_broker(tmp_path / "state")
        assert state is not None
        assert f"Kafka started at {state.bootstrap_servers} (pid {state.pid})" in started.stdout

        again = kafka("start", config)
        assert again.returncode == 0
        assert f"is running already at {state.bootstrap_servers} (pid {state.pid})" in again.stdout

        producer = Producer({"bootstrap.servers": state.bootstrap_servers})
        producer.produce("clicks", value=b"x", partition=1)
        assert producer.flush(30) == 0
        shown = kafka("status", config)
        assert shown.returncode == 0
        assert f"Kafka answers at {state.bootstrap_servers} (pid {state.pid})" in shown.stdout
        assert [cell.strip() for cell in shown.stdout.splitlines()[-2].split("│")[1:-1]] == ["clicks", "2", "0:0 1:1"]
        told = json.loads(kafka("status", config, "--json").stdout)
        assert told["topics"] == {"clicks": {"0": 0, "1": 1}}
    finally:
        stopped = kafka("stop", config)
    assert stopped.returncode == 0
    assert f"Kafka stopped (pid {state.pid})" in stopped.stdout
    assert not command_line_of(state.pid)
    assert kafka("stop", config).stdout == "Kafka was not running.\n"


def test_outside_broker_is_not_ours_to_start_and_its_silence_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "outside.yaml"
    config.write_text("kafka: {bootstrap_servers: '127.0.0.1:1'}\n")
    for command in ("start", "stop"):
        refused = kafka(command, config)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "a broker outside" in refused.stderr
    silent = kafka("status", config)
    assert silent.returncode == 1
    assert silent.stderr.startswith("lakehouse: No Kafka broker answered at 127.0.0.1:1 within ")
    assert silent.stderr.count("\n") == 1
