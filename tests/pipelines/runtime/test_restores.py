"""A checkpoint does not write on top of a log that lost what it had written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.errors import CheckpointError, DataLossError
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.settings_sources import load_settings
from pipelines.runtime.restores import refuse_lost_commits, refuse_restored, refuse_restored_after

NAME = "bronze.api_usage_events"
CHECKPOINT = Checkpoint(
    path="checkpoints/g1", generation="g", job="bronze", source="s", target="t", starting="", is_new=False, versions={NAME: 0}
)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Path of a table with versions 0 to 2."""
    path = str(tmp_path / "table")
    for number in range(3):
        write_deltalake(path, pa.table({"a": [number]}), mode="append")
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger that says that the checkpoint wrote version 2, and another one version 7."""
    ledger = Ledger(load_settings(None, environ={}, overrides={"lake.root": str(tmp_path / "lake")}))
    for generation, version in (("g", 2), ("other", 7)):
        ledger.record(BatchRow("bronze", generation, 0, {}).with_versions({NAME: version}))
    return ledger


def test_log_that_ends_too_early_or_with_nothing_is_refused(table: str, ledger: Ledger) -> None:
    refuse_lost_commits(CHECKPOINT, ledger, {NAME: table})
    commit = Path(table) / "_delta_log" / f"{2:020d}.json"
    commit.write_bytes(b"")
    with pytest.raises(DataLossError, match="has nothing in the commit of version 2, but the checkpoint checkpoints/g1 had come"):
        refuse_lost_commits(CHECKPOINT, ledger, {NAME: table})
    commit.unlink()
    with pytest.raises(DataLossError, match=r"ends with version 1, but .* had come to version 2"):
        refuse_restored(CHECKPOINT, ledger, {NAME: table})


def test_restore_after_a_version_is_refused(table: str) -> None:
    DeltaTable(table).restore(0)
    refuse_restored_after(3, CHECKPOINT, NAME, table)
    with pytest.raises(CheckpointError, match="by its version 3"):
        refuse_restored_after(2, CHECKPOINT, NAME, table)
