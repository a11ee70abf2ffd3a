"""Reads on a lake, its checkpoints and its topic as commit fab06ff wrote them, at another path and on other ports.

tests/data/README.md says how the archive was made.
"""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.local.producer import produce_events
from lakehouse.operations.checkpoints.verify import verify_checkpoint
from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.reading import read_facts
from lakehouse.operations.streams import STREAMS, run_to_end
from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.lake.checkpoint.identity import MARKER
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER
from pipelines.runtime.flags import job_parser
from pipelines.silver import replay as silver_replay

ARCHIVE = PROJECT / "tests" / "data" / "lake-of-fab06ff.tar.xz"
TABLES = (BRONZE, SILVER, DLQ, GOLD_HOURLY, GOLD_DAILY)
MIX = Mix(late=0.03, duplicate=0.05, conflict=0.01, malformed=0.04, tombstone=0.01)
ROUND = 500
"""Both as make_old_lake.sh sends them."""
OF_THE_MACHINE = {"disk-full", "disk-low"}
"""Findings of the doctor that are not about the lake."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The archive's content."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def config(folder: Path) -> Path:
    """The settings file of that commit with all its keys; its paths were relative to a folder that is gone."""
    text = (folder / "settings.yaml").read_text(encoding="utf-8")
    path = folder / "moved.yaml"
    path.write_text(text.replace(": .lakehouse", f": {folder}/.lakehouse").replace(": conf/", f": {PROJECT}/conf/"), "utf-8")
    return path


@pytest.fixture
def settings(config: Path) -> Iterator[Settings]:
    """The settings, while a broker runs on the kept topic. Fewer, larger batches than the old version had take less time."""
    larger = {"bronze.max_offsets_per_trigger": ROUND, "silver.max_bytes_per_trigger": "1m", "gold.max_bytes_per_trigger": "1m"}
    found = load_settings(config, environ={}, overrides=larger)
    with EmbeddedBroker(Path(found.lake.state_dir)):
        yield found


def test_lake_of_the_commit_before_is_read_on(spark: SparkSession, settings: Settings, config: Path, folder: Path) -> None:
    verdicts = {one["id"]: one["verdict"] for one in json.loads((folder / "verify.json").read_text("utf-8"))["invariants"]}
    findings = {one["id"] for one in json.loads((folder / "doctor.json").read_text("utf-8"))} - OF_THE_MACHINE
    assert set(verdicts.values()) == {"holds", "not checked"}

    generations = _sound_generations(settings)
    before, rows = _batches(settings, generations), _rows(settings)
    assert _verdicts(settings) == verdicts
    assert _findings(settings, config) == findings

    # The second round once more: copies of rows that the old version wrote. Then a round of another day.
    _produce(settings, seed=2, start=datetime(2026, 1, 28, 12, tzinfo=UTC))
    _produce(settings, seed=3, start=datetime(2026, 2, 28, 12, tzinfo=UTC))
    run_to_end(spark, settings, list(STREAMS), threading.Event())

    # On the same checkpoints, with the next batches, and each event once.
    assert _sound_generations(settings) == generations
    after = _batches(settings, generations)
    for job, numbers in after.items():
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > len(before[job]) > 1
    assert rows < _rows(settings) < rows + ROUND
    assert _verdicts(settings) == verdicts
    assert _findings(settings, config) == findings

    # A part that the old version read is read again.
    files = _files(settings)
    flags = ("--from-date", "2026-01-28", "--to-date", "2026-01-28", "--checkpoint-path", str(folder / "replay"))
    silver_replay.replay(spark, settings, job_parser("").parse_args(flags), threading.Event())
    assert _files(settings) == files
    assert _verdicts(settings) == verdicts


def _sound_generations(settings: Settings) -> dict[str, str]:
    """Generation of each job's only checkpoint, which has to be sound."""
    found = {}
    for job in STREAMS:
        (path,) = (Path(settings.lake.checkpoints) / job).iterdir()

        def verdict(path: Path = path) -> set[str]:
            return {one.id for one in verify_checkpoint(settings, open_storage(str(path))).findings}

        assert _once_kafka_answers(verdict) == set()
        found[job] = str(json.loads((path / MARKER).read_text("utf-8"))["generation"])
    return found


def _batches(settings: Settings, generations: Mapping[str, str]) -> dict[str, list[int]]:
    """Numbers of the batches of each stream, as the ledger has them."""
    ledger = DeltaTable(LEDGER.path(settings)).to_pyarrow_table(columns=["generation", "batch_id"])
    return {
        job: sorted(ledger.filter(pc.field("generation") == generation).column("batch_id").to_pylist())
        for job, generation in generations.items()
    }


def _verdicts(settings: Settings) -> dict[str, str]:
    return {one.id: one.verdict for one in verify(settings, VerifyOptions())}


def _findings(settings: Settings, config: Path) -> set[str]:
    return _once_kafka_answers(lambda: {one.id for one in diagnose(read_facts(settings, str(config)))}) - OF_THE_MACHINE


def _once_kafka_answers(look: Callable[[], set[str]]) -> set[str]:
    """What was found; on a busy machine the broker may need longer than those who look give it."""
    for _ in range(10):
        if "kafka-silent" not in (found := look()):
            break
    return found


def _produce(settings: Settings, *, seed: int, start: datetime) -> None:
    plan = ProducePlan(count=ROUND, seed=seed, start_time=start, span_seconds=14_400, mix=MIX, customers=20, endpoints=8)
    produce_events(settings, plan, Path(settings.lake.state_dir) / "op_ledger")


def _rows(settings: Settings) -> int:
    return int(DeltaTable(SILVER.path(settings)).to_pyarrow_table(columns=["event_id"]).num_rows)


def _files(settings: Settings) -> dict[str, list[str]]:
    return {str(table): sorted(DeltaTable(table.path(settings)).file_uris()) for table in TABLES}
