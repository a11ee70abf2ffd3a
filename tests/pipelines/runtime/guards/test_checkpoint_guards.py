"""A checkpoint does not write on top of a log that lost what it had written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.errors import CheckpointError, DataLossError
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE
from pipelines.runtime.guards.checkpoint import refuse_lost_commits
from pipelines.runtime.guards.start import Start
from pipelines.runtime.restores import refuse_restored_after

CHECKPOINT = Checkpoint(
    path="checkpoints/g1",
    generation="g",
    job="bronze",
    source="s",
    target="t",
    starting="",
    is_new=False,
    versions={str(BRONZE): 0},
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a lake whose Bronze has versions 0 to 2; the checkpoint wrote version 2, and another one version 7."""
    settings = load_settings(None, environ={}, overrides={"lake.root": str(tmp_path / "lake")})
    for number in range(3):
        write_deltalake(_path(settings), pa.table({"a": [number]}), mode="append")
    for generation, version in (("g", 2), ("other", 7)):
        Ledger(settings).record(BatchRow("bronze", generation, 0, {}).with_versions({str(BRONZE): version}))
    return settings


def _path(settings: Settings) -> Path:
    path = Path(BRONZE.path(settings))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_log_that_ends_too_early_or_with_nothing_is_refused(spark: SparkSession, settings: Settings) -> None:
    start = Start(spark=spark, settings=settings, job="bronze", checkpoint=CHECKPOINT)
    refuse_lost_commits(start)
    commit = _path(settings) / "_delta_log" / f"{2:020d}.json"
    commit.write_bytes(b"")
    with pytest.raises(DataLossError, match="has nothing in the commit of version 2, but the checkpoint checkpoints/g1 had come"):
        refuse_lost_commits(start)
    commit.unlink()
    with pytest.raises(DataLossError, match=r"ends with version 1, but .* had come to version 2"):
        refuse_lost_commits(start)


def test_restore_after_a_version_is_refused(settings: Settings) -> None:
    path = str(_path(settings))
    DeltaTable(path).restore(0)
    refuse_restored_after(3, CHECKPOINT, str(BRONZE), path)
    with pytest.raises(CheckpointError, match="by its version 3"):
        refuse_restored_after(2, CHECKPOINT, str(BRONZE), path)
