"""The batch ledger: rows that come back as they were written, and what they cover."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lake.ledger.ledger import COUNTS, BatchRow, Ledger, merge_ranges
from pipelines.lake.settings import load_settings

STARTED = datetime(2026, 1, 28, 10, 0, 0, 123_456, tzinfo=UTC)
ROW = BatchRow(
    job="silver",
    generation="g1",
    batch_id=3,
    offsets={"0": [5, 9]},
    rows_read=4,
    inserted=1,
    duplicate=1,
    conflict=1,
    dead_lettered=1,
    tombstone=1,
    versions={"silver.api_usage_events": 7},
    started_at=STARTED,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(load_settings(None, environ={}, overrides={"lake.root": str(tmp_path / "my lake")}))


def test_row_comes_back_from_its_commit_metadata() -> None:
    metadata = json.loads(json.dumps({**ROW.metadata(), "version": 12, "from a newer release": 1}))

    assert BatchRow.from_metadata(metadata) == ROW


def test_row_is_written_as_it_is(ledger: Ledger) -> None:
    ledger.record(ROW)
    [row] = DeltaTable(ledger.path).to_pyarrow_table().to_pylist()

    assert {name: row[name] for name in COUNTS} == {name: getattr(ROW, name) for name in COUNTS}
    assert (row["job"], row["generation"], row["batch_id"], row["started_at"]) == ("silver", "g1", 3, STARTED)
    assert (json.loads(row["offsets"]), json.loads(row["versions"])) == (ROW.offsets, ROW.versions)
    assert row["duration_ms"] == int((row["committed_at"] - STARTED).total_seconds() * 1000)


def test_ledger_knows_its_batches_and_what_they_cover(ledger: Ledger) -> None:
    assert (ledger.has("silver", "g1", 3), ledger.covered("silver"), ledger.end_offsets("silver")) == (False, {}, {})
    rows = [("silver", "g1", {"0": [0, 5], "1": [2, 3]}), ("silver", "g2", {"0": [5, 9]}), ("bronze", "g1", {"0": [0, 99]})]
    rows += [("silver", "g2", {"0": [20, 30]})]
    for number, (job, generation, offsets) in enumerate(rows):
        ledger.record(BatchRow(job, generation, number, offsets))

    assert [ledger.has("silver", generation, 1) for generation in ("g1", "g2")] == [False, True]
    assert not ledger.has("bronze", "g2", 1)
    assert ledger.covered("silver") == {0: [(0, 9), (20, 30)], 1: [(2, 3)]}
    assert ledger.end_offsets("silver") == {0: 30, 1: 3}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda pair: (pair[0], sum(pair))), max_size=12))
def test_merged_ranges_cover_the_same_and_do_not_touch(ranges: list[tuple[int, int]]) -> None:
    merged = merge_ranges(ranges)

    assert {n for start, end in merged for n in range(start, end)} == {n for start, end in ranges for n in range(start, end)}
    assert all(left[1] < right[0] for left, right in pairwise(merged))
