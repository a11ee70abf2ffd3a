"""The batch ledger: rows that come back as they were written, and what they cover."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.ledger_row import COUNTS, Kind
from pipelines.lake.settings_sources import load_settings

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


def test_partition_without_a_record_has_a_position_and_covers_nothing(ledger: Ledger) -> None:
    ledger.record(BatchRow("bronze", "g1", 0, {"0": [3, 9], "1": [7, 7]}))

    assert ledger.covered("bronze") == {0: [(3, 9)]}
    assert ledger.positions("bronze") == {0: (3, 9), 1: (7, 7)}
    # A reader that took 0 for it would look for offsets 0 to 6 that retention had deleted before the lake was there.
    assert ledger.end_offsets("bronze") == {0: 9, 1: 7}


@pytest.mark.parametrize(
    ("generation", "kind"),
    [
        ("0123456789ab", Kind.BATCH),
        ("voided", Kind.BATCH),
        ("replay-0123456789ab", Kind.REPLAY),
        ("replay-0123456789ab.2", Kind.REPLAY),
        ("part:0123456789ab", Kind.PART),
        ("part:replay-0123456789ab", Kind.PART),
        ("rebuild-20260128", Kind.REBUILD),
        ("void:0123456789ab", Kind.VOID_EVENTS),
        ("void:rebuild-20260128", Kind.VOID_EVENTS),
        ("void-dlq:0123456789ab", Kind.VOID_LETTERS),
    ],
)
def test_kind_is_told_by_the_generation(ledger: Ledger, generation: str, kind: Kind) -> None:
    ledger.record(replace(ROW, generation=generation))
    [row] = ledger.batches("silver")

    assert (row.kind, row.generation) == (kind, generation)
    assert generation.startswith(kind.prefix)
    assert row.is_void == (kind in (Kind.VOID_EVENTS, Kind.VOID_LETTERS))


def test_stored_form_is_the_one_that_it_always_was(ledger: Ledger) -> None:
    ledger.record(ROW)
    ledger.record(replace(ROW, batch_id=4, holes={"0": [[6, 7]]}))
    table = DeltaTable(ledger.path).to_pyarrow_table().sort_by("batch_id")

    assert table.column_names == [
        *("job", "generation", "batch_id", "offsets", *COUNTS),
        *("holes", "versions", "started_at", "committed_at", "duration_ms"),
    ]
    assert table["holes"].to_pylist() == [None, '{"0": [[6, 7]]}']
    assert table["offsets"].to_pylist() == ['{"0": [5, 9]}'] * 2
    assert table["versions"].to_pylist() == ['{"silver.api_usage_events": 7}'] * 2
    assert set(ledger.batches("silver")[0].metadata()) == {one.name for one in fields(BatchRow)}
