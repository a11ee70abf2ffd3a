"""The checkpoint that a stream uses: lost, broken, behind its table, or ahead of the ledger; read from real files."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from lakehouse.operations.doctor.checkpoints import check_checkpoints
from lakehouse.operations.doctor.findings import Finding
from lakehouse.operations.doctor.reading import read_facts
from lakehouse.operations.doctor.reading_checkpoints import read_checkpoints
from pipelines.lake.lease.checkpoints import CHECKPOINT_LOCK
from pipelines.lake.tables import BRONZE, GOLD_HOURLY, SILVER
from tests.lakehouse.operations.checkpoints.test_verify import three_bronze_batches, three_silver_batches


def found(lake: Any) -> dict[str, Finding]:
    return {one.id: one for one in check_checkpoints(read_facts(lake.settings, "my.yaml"))}


def test_sound_checkpoints_have_no_findings(lake: Any) -> None:
    three_bronze_batches(lake)
    assert found(lake) == {}


def test_job_without_its_checkpoint_is_told_from_one_that_never_ran(lake: Any) -> None:
    shutil.rmtree(three_bronze_batches(lake))
    (one,) = found(lake).values()
    assert (one.id, one.severity, one.playbook) == ("checkpoint-lost", "critical", "checkpoint-lost")
    assert "batch 2 of generation 0123456789ab" in one.evidence
    assert one.commands[0] == "lakehouse checkpoint rebuild bronze --dry-run --config my.yaml"


def test_broken_file_is_passed_on_with_the_rebuild_filled_in(lake: Any) -> None:
    path = three_bronze_batches(lake)
    (path / "offsets/2").write_text("")
    (one,) = found(lake).values()
    assert (one.id, one.severity, one.confidence) == ("checkpoint-broken-file", "critical", "certain")
    assert f"{path}: offsets/2 is empty" in one.evidence
    after = str(path.with_name("g2"))
    assert one.commands == (
        f"lakehouse checkpoint verify {path} --config my.yaml",
        f"lakehouse checkpoint rebuild bronze {after} --dry-run --config my.yaml",
        f"lakehouse checkpoint rebuild bronze {after} --config my.yaml",
        f"python pipelines/bronze/bronze_ingestion.py --config my.yaml --checkpoint-path {after}",
    )


def test_old_copy_whose_batches_delta_would_skip_is_the_trap(lake: Any) -> None:
    path = three_bronze_batches(lake)
    for name in ("offsets/2", "commits/2", "offsets/1", "commits/1"):
        (path / name).unlink()
    one = found(lake)["transaction-trap"]
    assert (one.severity, one.confidence) == ("critical", "certain")
    assert "batch 1 to 2" in one.evidence
    assert "loses as many new batches as 2: the last such batches had 4 records" in one.at_stake
    assert f"lakehouse checkpoint copy {path} {path.with_name('g2')} --new-generation --config my.yaml" in one.commands


def test_rows_that_a_restore_took_back_come_with_the_rollback_that_reads_them_again(lake: Any) -> None:
    path = three_silver_batches(lake)
    lake.table(SILVER).restore(2)
    one = found(lake)["checkpoint-restored-table"]
    assert (one.severity, one.playbook) == ("critical", "bad-deploy")
    again = f"lakehouse rollback {SILVER} --to 2 --repair"
    assert one.commands == (
        f"lakehouse checkpoint verify {path} --config my.yaml",
        f"{again} --dry-run --config my.yaml",
        f"{again} --config my.yaml",
        f"python pipelines/silver/silver_processing.py --config my.yaml --checkpoint-path {path.with_name('g2')}",
    )


def test_committed_batch_without_its_ledger_row_is_named(lake: Any) -> None:
    ends = [{0: 1}, {0: 2}, {0: 3}]
    for batch in range(3):
        version = lake.append(BRONZE, [(0, batch)], batch=batch)
        if batch != 1:
            lake.record("bronze", batch, {"0": [batch, batch + 1]}, rows_read=1, inserted=1, versions={str(BRONZE): version})
    path = lake.checkpoint("bronze", ends)
    (one,) = found(lake).values()
    assert (one.id, one.severity) == ("ledger-rows-missing", "warning")
    assert f"Batch 1 of {path} is committed" in one.evidence


def test_stream_uses_the_locked_checkpoint_else_the_one_that_changed_last(lake: Any) -> None:
    old = three_bronze_batches(lake)
    new = Path(shutil.copytree(old, old.with_name("g2")))
    for file in [*old.rglob("*"), old]:
        os.utime(file, (1_000_000, 1_000_000))
    assert read_checkpoints(lake.settings)["bronze"].path == str(new)
    holder = {"job": "bronze", "run": "g", "pid": os.getpid(), "host": "elsewhere", "since": "2026-01-28T10:00:00+00:00"}
    (old / CHECKPOINT_LOCK).write_text(json.dumps(holder))
    os.utime(old / CHECKPOINT_LOCK, (1_000_000, 1_000_000))
    assert read_checkpoints(lake.settings)["bronze"].path == str(new)
    with (old / CHECKPOINT_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        chosen = read_checkpoints(lake.settings)["bronze"]
    assert chosen.path == str(old)
    assert chosen.lock is not None
    assert (chosen.lock.holder.pid, chosen.next_path) == (os.getpid(), str(old.with_name("g3")))


def test_replays_beside_the_stream_are_not_its_checkpoint(lake: Any) -> None:
    path = three_bronze_batches(lake)
    replay = path.with_name("repair-1")
    (replay / "replay").mkdir(parents=True)
    (replay / "lakehouse.json").write_text((path / "lakehouse.json").read_text())
    (replay / "replay/plan.json").write_text("{}")
    lake.append(SILVER)
    lake.append(GOLD_HOURLY)
    gold = lake.checkpoint("gold", [(1, -1)])
    marker = json.loads((gold / "lakehouse.json").read_text()) | {"starting": '{"versions": [1, 2], "days": "{}"}'}
    gold.with_name("replay-1").mkdir()
    (gold.with_name("replay-1") / "lakehouse.json").write_text(json.dumps(marker))
    assert {job: one.path for job, one in read_checkpoints(lake.settings).items()} == {"bronze": str(path), "gold": str(gold)}
