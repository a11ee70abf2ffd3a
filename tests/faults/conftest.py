"""A lake of its own for a test: topic, settings file, events with an op ledger."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import ProducePlan
from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.local.producer import produce_events
from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.lake.failpoints import VARIABLE
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.runtime import jobs
from pipelines.runtime.stream_life import AVAILABLE_NOW

DAY = datetime(2026, 1, 28, 6, 0, tzinfo=UTC)
PATIENCE = 4 if os.environ.get("SPARK_SUBMIT_OPTS") else 1
"""How many times as long to wait with the quick JVM, where tests run beside each other and no times are taken."""
COMMAND = [sys.executable, "-c", "from lakehouse.commands.cli import run; run()"]


def _run(words: list[str], environ: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, "PYTHONPATH": str(PROJECT), **environ}
    return subprocess.run(words, env=whole, cwd=PROJECT, capture_output=True, text=True, timeout=timeout * PATIENCE, check=False)


@dataclass(frozen=True)
class LakeCase:
    """A topic with acknowledged events, and the lake that is to be made of them."""

    folder: Path
    config: Path
    settings: Settings

    def run(self, script: str, *args: str, fail_at: str = "") -> subprocess.CompletedProcess[str]:
        """Run a job as a process of its own, to be killed at `fail_at`."""
        words = [sys.executable, str(PROJECT / script), "--config", str(self.config), *args]
        return _run(words, {VARIABLE: fail_at}, timeout=300)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `lakehouse` on the lake, as a process of its own."""
        return _run([*COMMAND, *words, "--config", str(self.config)], {"COLUMNS": "180"}, timeout=200)

    def produce(self, count: int, seed: int, *, start: datetime = DAY, span_seconds: float = 4 * 3600.0) -> None:
        """Send events, which the op ledger knows."""
        plan = ProducePlan(count=count, seed=seed, start_time=start, span_seconds=span_seconds)
        produce_events(self.settings, plan, self.folder / "op_ledger")

    def with_checkpoints(self, name: str) -> Settings:
        """The settings with other checkpoints: a new generation over the same lake."""
        lake = self.settings.lake.model_copy(update={"checkpoints": str(self.folder / name)})
        return self.settings.model_copy(update={"lake": lake})

    def verdicts_of_replay(self) -> dict[str, str]:
        """Verdict of each invariant after Gold has read every change again from a new checkpoint; I6 holds."""
        digest, checkpoint = self.folder / "gold.digest", self.folder / f"again-{time.monotonic_ns()}"
        self.verdicts(write_digest=digest)
        replayed = self.run(
            "pipelines/gold/gold_aggregation.py", "--trigger", AVAILABLE_NOW, "--checkpoint-path", str(checkpoint)
        )
        assert replayed.returncode == 0, replayed.stderr
        verdicts = self.verdicts(gold_digest=digest)
        assert verdicts["I6"] == "holds", verdicts
        return verdicts

    def verdicts(self, **options: Any) -> dict[str, str]:
        """Verdict of each invariant, by the independent checker."""
        return {result.id: result.verdict for result in verify(self.settings, VerifyOptions(**options))}


@pytest.fixture(scope="session")
def fault_seed(request: pytest.FixtureRequest) -> int:
    """Seed of this run, from `--seed` of the report's plugin; 1 without it."""
    return int(request.config.getoption("--seed", default=1))


def make_case(
    folder: Path,
    address: str,
    *,
    events: int = 0,
    seed: int = 1,
    partitions: int = 3,
    topic_config: Mapping[str, str] | None = None,
    **sections: Any,
) -> LakeCase:
    """A case in `folder` with so many events on a topic of its own on the broker at `address`; `sections` change settings."""
    topic = f"events-{folder.name}"
    ensure_topic(address, topic, partitions, {"retention.ms": "-1", **(topic_config or {})})
    tree: dict[str, Any] = {
        "kafka": {"bootstrap_servers": address, "topic": topic},
        "lake": {"root": str(folder / "lake"), "checkpoints": str(folder / "checkpoints"), "state_dir": str(folder)},
        "schemas_dir": str(PROJECT / "conf" / "schemas" / "api_usage_events"),
        # Small batches, so that there is a second one to be killed in.
        "bronze": {"max_offsets_per_trigger": events // 3 or 5000},
        "silver": {"max_bytes_per_trigger": "100k"},
        "spark": {"spark.driver.memory": "1g", "spark.master": "local[2]"},
    }
    for name, value in sections.items():
        tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
    config = folder / "settings.yaml"
    config.write_text(yaml.safe_dump(tree))
    case = LakeCase(folder, config, load_settings(config, environ={}))
    if events:
        case.produce(events, seed=1000 * seed + events)
    return case


@pytest.fixture
def lake_case(broker: EmbeddedBroker, tmp_path: Path, fault_seed: int) -> Callable[..., LakeCase]:
    """Make a case with so many events on a topic of its own."""

    def make(events: int, **sections: Any) -> LakeCase:
        return make_case(tmp_path, broker.bootstrap_servers, events=events, seed=fault_seed, **sections)

    return make


@pytest.fixture
def at_rest(
    spark: SparkSession,
    lake_case: Callable[..., LakeCase],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault_seed: int,
) -> Callable[..., Any]:
    """Make a lake of so many events and some more, and records in Kafka that nobody has read yet."""
    from tests.faults.at_rest import fill  # noqa: PLC0415 - it imports this module

    monkeypatch.setattr(jobs, "stop_on_signals", threading.Event)  # the handlers are pytest's

    def make(events: int, **sections: Any) -> Any:
        return fill(lake_case(events, **sections), spark, capsys, fault_seed)

    return make


@pytest.fixture
def filled(at_rest: Callable[..., Any]) -> Any:
    """A lake at rest with some dozens of batches in each layer."""
    return at_rest(1200, silver={"max_bytes_per_trigger": "20k"})


@pytest.fixture
def filled_soon(at_rest: Callable[..., Any]) -> Any:
    """A lake at rest with few batches."""
    return at_rest(600)
