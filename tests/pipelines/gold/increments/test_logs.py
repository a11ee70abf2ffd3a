"""Positions and steps from the logs of real tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from pipelines.gold.increments.position import Position, Void, find_position, position_id, position_note
from pipelines.gold.increments.step import Apply, Idle, Limits, Recompute, next_step
from pipelines.lake.contract.contract import CHANGE_FEED
from pipelines.lake.delta_log.history import commits_after, newest_commits

ID = position_id("by-key", "silver-1", "sum of bytes")
LIMITS = Limits(step_bytes=10_000, recompute_bytes=100_000)


def _add(path: Path, *rows: int, **options: Any) -> int:
    write_deltalake(str(path), pa.table({"n": pa.array(rows, pa.int64())}), mode="append", **options)
    return DeltaTable(str(path)).version()


def _move(path: Path, to: int) -> int:
    """Add a row and move the position, as a step does."""
    note = {"userMetadata": json.dumps(position_note(DeltaTable(str(path)).version()))}
    done = CommitProperties(custom_metadata=note, app_transactions=[Transaction(ID, to)])
    return _add(path, 1, commit_properties=done)


def _position(path: Path) -> Position | Void:
    return find_position(newest_commits(str(path), DeltaTable(str(path)).version()), ID)


def test_position_outlives_maintenance_and_a_log_that_is_cleaned_before_it(tmp_path: Path) -> None:
    _add(tmp_path, 0)
    at = _move(tmp_path, 7)
    table = DeltaTable(str(tmp_path))
    assert table.optimize.compact()["numFilesAdded"] == 1
    table.alter.set_table_properties({"delta.appendOnly": "false"})
    assert _position(tmp_path) == Position(7, at - 1)

    # The id stays in the table's state when its commit has left the log: a checkpoint written by deltalake keeps it.
    table.create_checkpoint()
    for version in range(at):
        (tmp_path / "_delta_log" / f"{version:020d}.json").unlink()
    assert _position(tmp_path) == Position(7, at - 1)
    assert DeltaTable(str(tmp_path)).transaction_version(ID) == 7
    (tmp_path / "_delta_log" / f"{at:020d}.json").unlink()
    assert _position(tmp_path) == Void("its log holds no position")
    assert DeltaTable(str(tmp_path)).transaction_version(ID) == 7


def test_stranger_and_restore_void_a_position(tmp_path: Path) -> None:
    _add(tmp_path, 0)
    _move(tmp_path, 7)
    stranger = _add(tmp_path, 2)
    assert _position(tmp_path) == Void(f"version {stranger} (WRITE) was written by somebody else")
    _move(tmp_path, 7)
    assert isinstance(_position(tmp_path), Position)
    DeltaTable(str(tmp_path)).restore(0)
    assert _position(tmp_path) == Void(f"version {DeltaTable(str(tmp_path)).version()} (RESTORE) was written by somebody else")


def test_step_reads_versions_with_their_size(tmp_path: Path) -> None:
    first = _add(tmp_path, 0, configuration={CHANGE_FEED: "true"})
    for number in range(20):
        _add(tmp_path, *range(number, number + 200))
    table = DeltaTable(str(tmp_path))
    table.update(updates={"n": "n + 1"}, predicate="n = 3")
    current = DeltaTable(str(tmp_path)).version()

    sizes = {one.version: one.changed_bytes for one in commits_after(str(tmp_path), first)}
    assert list(sizes) == list(range(first + 1, current + 1))
    assert all(200 < size < 10_000 for size in sizes.values())
    position, steps = Position(first, 0), 0
    while isinstance(step := next_step(position, commits_after(str(tmp_path), position.source_version), current, LIMITS), Apply):
        assert sum(sizes[version] for version in range(step.after + 1, step.upto + 1)) <= LIMITS.step_bytes
        position, steps = Position(step.upto, 0), steps + 1
    assert (step, position.source_version) == (Idle(), current)
    assert 2 <= steps < 20

    DeltaTable(str(tmp_path)).restore(first)
    step = next_step(position, commits_after(str(tmp_path), current), current + 1, LIMITS)
    assert step == Recompute(current + 1, f"version {current + 1} of its source is a RESTORE")
