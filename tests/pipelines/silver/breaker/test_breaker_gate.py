"""The breaker in front of the real Silver job: a flood is held before its offsets advance, and nothing gets lost by it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.errors import StreamingQueryException

from lakehouse.operations.breaker import find_acceptance
from pipelines.lake.errors import EXIT_HELD, BreakerOpenError, own_error
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.tables import CIRCUIT_BREAKER, DLQ, LEDGER, SILVER
from pipelines.silver.breaker.breaker import Tally
from pipelines.silver.breaker.breaker_store import BreakerStore, Transition

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
MakeEvent = Callable[..., Row]
MakeRecord = Callable[..., Row]


@pytest.fixture
def guarded(lake: Lake) -> Lake:
    """A lake whose breaker opens on half of five records, and stays open for an hour."""
    lake.changes |= {"breaker.min_records": 5, "breaker.cool_down_seconds": 3600}
    return lake


def _held(lake: Lake, checkpoint: str = "g1") -> BreakerOpenError:
    with pytest.raises(StreamingQueryException) as caught:
        lake.run_silver(checkpoint)
    named = own_error(str(caught.value))
    assert isinstance(named, BreakerOpenError)
    assert named.exit_code == EXIT_HELD
    return named


def _states(lake: Lake) -> list[str]:
    return [change.to_state for change in reversed(BreakerStore(lake.settings).newest(100))]


def _committed(lake: Lake) -> list[str]:
    return sorted(path.name for path in Path(lake.settings.lake.checkpoints).glob("silver/g1/commits/*") if path.name.isdigit())


def _flood(make_record: MakeRecord, first: int, count: int = 6) -> list[Row]:
    return [make_record(b"{", offset) for offset in range(first, first + count)]


def test_flood_is_held_and_flows_again_when_what_lands_is_fine(
    guarded: Lake, make_event: MakeEvent, make_record: MakeRecord
) -> None:
    lake = guarded
    lake.append(make_record(make_event(), 0), *_flood(make_record, 1))

    said = str(_held(lake))

    assert "6 of 7 records are dead letters (86%, expected under 50%)" in said
    assert "playbooks/poison-flood.md" in said
    assert _committed(lake) == []
    assert (lake.rows(SILVER), lake.rows(DLQ)) == ([], [])
    assert not Path(lake.path(LEDGER)).exists()

    # In the cool-down it is refused at once, and no change of state is recorded.
    assert "circuit breaker is open" in str(_held(lake))
    assert _states(lake) == ["open"]

    # Bronze went on, with more of the same: the probe fails.
    lake.append(*({**row, "_ingested_at": datetime.now(UTC)} for row in _flood(make_record, 7)))
    lake.changes["breaker.cool_down_seconds"] = 0
    _held(lake)
    assert _states(lake) == ["open", "half_open", "open"]
    assert lake.rows(DLQ) == []

    # Now good records land: what was held, and the flood behind it, passes in one go.
    good = [make_record(make_event(event_id=f"e{n}"), n) for n in range(13, 40)]
    lake.append(*({**row, "_ingested_at": datetime.now(UTC)} for row in good))
    lake.run_silver()

    assert _states(lake) == ["open", "half_open", "open", "half_open", "closed"]
    assert len(lake.rows(DLQ)) == 12
    assert len(lake.rows(SILVER)) == 28
    assert lake.counts() == {"rows_read": 40, "inserted": 28, "dead_lettered": 12}


def test_batch_that_bronze_was_writing_while_a_probe_failed_is_seen_by_the_next(
    guarded: Lake, make_event: MakeEvent, make_record: MakeRecord
) -> None:
    lake = guarded
    lake.append(*_flood(make_record, 0))
    _held(lake)
    lake.changes["breaker.cool_down_seconds"] = 0
    begun = datetime.now(UTC)
    _held(lake)

    # It bears the time of its begin; its rows and its ledger row came after the probe had looked.
    good = [make_record(make_event(event_id=f"e{n}"), n) for n in range(6, 20)]
    lake.append(*({**row, "_ingested_at": begun} for row in good))
    Ledger(lake.settings).record(BatchRow("bronze", "b", 1, {"0": [6, 20]}, rows_read=14, inserted=14, started_at=begun))
    lake.run_silver()

    assert _states(lake)[-1] == "closed"
    assert (len(lake.rows(SILVER)), len(lake.rows(DLQ))) == (14, 6)


def test_probe_fails_where_nothing_new_landed_until_an_operator_accepts(
    guarded: Lake, make_event: MakeEvent, make_record: MakeRecord
) -> None:
    lake = guarded
    lake.append(*_flood(make_record, 0), make_record(make_event(), 6))
    _held(lake)
    lake.changes["breaker.cool_down_seconds"] = 0
    _held(lake)
    store = BreakerStore(lake.settings)
    found = find_acceptance(lake.settings, store.last())
    assert (found.ends, found.waiting) == ({0: 7}, 7)
    store.append(Transition(datetime.now(UTC), "open", "closed", Tally(), "reset: seen", accepted=found.ends))
    lake.run_silver()

    assert (len(lake.rows(SILVER)), len(lake.rows(DLQ))) == (1, 6)
    # A new checkpoint reads the same flood again: it was accepted, and its dead letters are there already.
    lake.run_silver("g2")
    assert _states(lake)[-1] == "closed"
    assert len(lake.rows(DLQ)) == 6
    # What comes after is judged by itself.
    lake.append(*_flood(make_record, 7))
    assert "6 of 6 records" in str(_held(lake))


def test_restart_forgets_neither_the_state_nor_the_window(guarded: Lake, make_event: MakeEvent, make_record: MakeRecord) -> None:
    lake = guarded
    lake.append(make_record(make_event(), 0), *_flood(make_record, 1, 3))
    lake.run_silver()  # too few to judge
    lake.append(*_flood(make_record, 4, 3))

    assert "6 of 7 records" in str(_held(lake))  # a new sink: the first batch counts by the ledger
    assert _committed(lake) == ["0"]
    lake.changes["breaker.enabled"] = False
    lake.run_silver()
    assert len(lake.rows(DLQ)) == 6


def test_few_or_few_bad_records_and_tombstones_and_copies_pass(
    guarded: Lake, make_event: MakeEvent, make_record: MakeRecord
) -> None:
    lake = guarded
    lake.append(*(make_record(None, n) for n in range(6)), *(make_record(make_event(), n) for n in range(6, 12)))
    lake.run_silver()
    lake.append(*_flood(make_record, 12, 4))
    lake.run_silver()

    assert lake.counts() == {"rows_read": 16, "inserted": 1, "duplicate": 5, "tombstone": 6, "dead_lettered": 4}
    assert not Path(lake.path(CIRCUIT_BREAKER)).exists()


def test_batch_passes_where_the_state_cannot_be_recorded(guarded: Lake, make_record: MakeRecord) -> None:
    lake = guarded
    lake.append(*_flood(make_record, 0))
    table = Path(lake.path(CIRCUIT_BREAKER))
    table.parent.mkdir(parents=True)
    table.write_text("a file where the table should be")
    lake.run_silver()

    assert len(lake.rows(DLQ)) == 6
