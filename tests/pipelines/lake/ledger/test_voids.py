"""Batches that were taken back: their counts cancel out and their offsets are no longer covered, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.ledger.voids import EVENTS, LETTERS, standing, void_row
from pipelines.lake.ledger_row import COUNTS
from pipelines.lake.settings_sources import load_settings


def _ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(load_settings(None, environ={}, overrides={"lake.root": str(tmp_path)}))
    for number in range(3):
        offsets = {"0": [10 * number, 10 * number + 10]}
        counts: dict[str, Any] = {
            "rows_read": 10,
            "inserted": 4,
            "replaced": 1,
            "duplicate": 2,
            "conflict": 1,
            "dead_lettered": 2,
            "tombstone": 1,
            "late": 3,
        }
        ledger.record(BatchRow("silver", "g1", number, offsets, **counts))
    return ledger


def _sums(ledger: Ledger) -> dict[str, int]:
    return {name: sum(getattr(row, name) for row in ledger.batches("silver")) for name in COUNTS}


def test_events_taken_back_leave_the_dead_letters_and_uncover_the_offsets(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    before = ledger.batches("silver")
    ledger.append([void_row(before[1:], EVENTS)])

    assert ledger.covered("silver") == {0: [(0, 10)]}
    assert [row.batch_id for row in standing(ledger.batches("silver"))] == [0]
    expected = {"rows_read": 14, "inserted": 4, "replaced": 1, "duplicate": 2, "conflict": 1, "tombstone": 1, "late": 3}
    assert _sums(ledger) == {**dict.fromkeys(COUNTS, 0), **expected, "dead_lettered": 6}
    void = next(row for row in ledger.batches("silver") if row.generation == "void:g1")
    parts = ("inserted", "replaced", "duplicate", "already_present", "dead_lettered", "tombstone")
    assert void.rows_read == sum(getattr(void, name) for name in parts)
    assert void.committed_at == before[-1].committed_at
    assert all(ledger.has("silver", "g1", number) for number in range(3))


def test_dead_letters_taken_back_leave_the_rest(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    rows = ledger.batches("silver")
    ledger.append([void_row(rows[2:], LETTERS)])

    assert ledger.covered("silver") == {0: [(0, 30)]}
    assert ledger.letters_taken_back("silver") == {0: [(20, 30)]}
    assert [row.batch_id for row in standing(ledger.batches("silver"), LETTERS)] == [0, 1]
    assert (_sums(ledger)["dead_lettered"], _sums(ledger)["inserted"]) == (4, 12)


def test_generation_that_goes_on_after_a_void_stands(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    ledger.append([void_row(ledger.batches("silver"), EVENTS)])
    ledger.record(BatchRow("silver", "g1", 3, {"0": [30, 40]}, rows_read=10, inserted=10))

    assert ledger.covered("silver") == {0: [(30, 40)]}
    assert _sums(ledger)["inserted"] == 10
