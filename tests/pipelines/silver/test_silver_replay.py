"""Replays of a part of Bronze into Silver: bounded, repeated, beside the stream, with rows corrected."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from pipelines.lake.errors import EXIT_INTERRUPTED, CheckpointError, StoppedError, UsageError
from pipelines.lake.tables import DLQ, SILVER
from pipelines.runtime.flags import job_parser
from pipelines.runtime.replay import run_plan
from pipelines.silver import replay as silver_replay
from pipelines.silver import silver_processing

if TYPE_CHECKING:
    from tests.conftest import Copy
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
WHEN = ("_processed_at", "_dead_lettered_at")


def _replay(lake: Lake, *flags: str, stop: threading.Event | None = None, **options: Any) -> None:
    args = job_parser("").parse_args(flags)
    silver_replay.replay(lake.spark, lake.settings, args, stop or threading.Event(), **options)


def _content(lake: Lake) -> list[list[Row]]:
    return [lake.rows(table, without=WHEN) for table in (SILVER, DLQ)]


@pytest.fixture
def filled(lake: Lake, made_once: Copy, make_event: Callable[..., Row], make_record: Callable[..., Row]) -> Lake:
    """Two partitions and two days: events, copies, a dead letter and a tombstone."""

    def make(folder: Path) -> None:
        first, day = type(lake)(lake.spark, folder), timedelta(days=1)
        events = (make_record(make_event(event_id=f"a{n}"), n) for n in range(6))
        first.append(*events, make_record(b"{", 6), make_record(None, 7))
        first.append(*(make_record(make_event(event_id=f"a{n}"), n, partition=1, at=T0 + day) for n in range(4)))
        first.append(*(make_record(make_event(event_id=f"b{n}"), 8 + n, at=T0 + day) for n in range(4)))
        first.run_silver()

    made_once(lake.folder, make)
    return lake


PARTS = [
    (["--starting-offsets", '{"0":2}', "--ending-offsets", '{"0":8}'], 6),
    (["--ending-offsets", '{"0":3,"1":2}'], 5),
    (["--from-date", "2026-01-29"], 8),
    (["--starting-offsets", '{"0":0}', "--from-date", "2026-01-29", "--to-date", "2026-01-29"], 4),
]


def test_replay_reads_its_part_alone_and_changes_nothing(filled: Lake, tmp_path: Path) -> None:
    before, counts, versions = _content(filled), filled.counts(), [filled.version(table) for table in (SILVER, DLQ)]

    for number, (flags, read) in enumerate(PARTS):
        rows = filled.counts()["rows_read"]
        for turn in range(2):
            _replay(filled, *flags, "--checkpoint-path", str(tmp_path / f"replay-{number}-{turn}"))
        assert filled.counts()["rows_read"] == rows + 2 * read

    assert _content(filled) == before
    assert [filled.version(table) for table in (SILVER, DLQ)] == versions
    after = filled.counts()
    assert after.pop("already_present") == after["rows_read"] - counts["rows_read"]
    assert {**after, "rows_read": 0} == {**counts, "rows_read": 0}


def test_lost_rows_come_back_by_a_replay_and_only_they(filled: Lake, tmp_path: Path) -> None:
    before = _content(filled)
    DeltaTable(filled.path(SILVER)).delete("event_id IN ('a1', 'b2')")

    _replay(filled, "--from-date", "2026-01-28", "--to-date", "2026-01-28", "--checkpoint-path", str(tmp_path / "r1"))
    assert {row["event_id"] for row in filled.rows(SILVER)} == {row["event_id"] for row in before[0]} - {"b2"}
    _replay(filled, "--from-date", "2026-01-29", "--checkpoint-path", str(tmp_path / "r2"))

    assert _content(filled) == before


def test_dry_run_says_how_much_and_writes_nothing(filled: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = filled.counts()

    _replay(filled, "--from-date", "2026-01-29", "--dry-run", "--checkpoint-path", str(tmp_path / "r"))

    assert "8 records in 1 batches (partition: offsets 0: 8 to 11, 1: 0 to 3)" in capsys.readouterr().err
    assert filled.counts() == ledger
    assert not (tmp_path / "r").exists()


def test_stopped_replay_goes_on_where_it_was(filled: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silver_replay, "cut", lambda ranges, _records: [{part: span} for part, span in ranges.items()])
    flags = ["--from-date", "2026-01-29", "--checkpoint-path", str(tmp_path / "r")]
    stop, read = threading.Event(), filled.counts()["rows_read"]
    original = run_plan

    def stop_after_one(checkpoint: Any, plan: Any, work: Callable[[Any, int], None], stop: threading.Event) -> None:
        def once(ranges: Any, number: int) -> None:
            work(ranges, number)
            stop.set()

        original(checkpoint, plan, once, stop)

    monkeypatch.setattr(silver_replay, "run_plan", stop_after_one)
    with pytest.raises(StoppedError, match="stopped after 1 of 2 batches; the same command goes on") as caught:
        _replay(filled, *flags, stop=stop)
    assert caught.value.exit_code == EXIT_INTERRUPTED
    assert filled.counts()["rows_read"] == read + 4
    monkeypatch.setattr(silver_replay, "run_plan", original)
    _replay(filled, *flags)
    assert filled.counts()["rows_read"] == read + 8
    _replay(filled, *flags)
    assert filled.counts()["rows_read"] == read + 8


WRONG = [
    (["--ending-offsets", '{"7":1}'], "partition 7, but Bronze has 0, 1 only"),
    (["--ending-offsets", '{"0":13}'], "gives offset 13 for partition 0, but Bronze holds 0 to 12"),
    (["--ending-offsets", '{"0":-1}'], "--ending-offsets has no partition, or an offset that is none"),
    (["--ending-offsets", "{"], "--ending-offsets is not understood"),
    (["--starting-offsets", '{"0":5}', "--ending-offsets", '{"0":5}'], "nothing to read"),
    (["--from-date", "2026-13-40"], "--from-date is '2026-13-40'"),
    (["--from-date", "2026-02-02", "--to-date", "2026-02-01"], "is after --to-date"),
    (["--from-date", "2031-01-01"], "Bronze has nothing in these offsets and days"),
]


def test_wrong_part_is_one_sentence_and_nothing_is_written(filled: Lake, tmp_path: Path) -> None:
    ledger = filled.counts()

    for flags, sentence in WRONG:
        with pytest.raises(UsageError, match=sentence) as caught:
            _replay(filled, *flags, "--checkpoint-path", str(tmp_path / "r"))
        assert caught.value.exit_code == 2

    assert not (tmp_path / "r").exists()
    assert filled.counts() == ledger


def test_checkpoint_of_another_replay_or_of_the_stream_is_refused(filled: Lake, tmp_path: Path) -> None:
    _replay(filled, "--from-date", "2026-01-29", "--checkpoint-path", str(tmp_path / "r"))

    with pytest.raises(CheckpointError, match="already knows where to go on"):
        _replay(filled, "--from-date", "2026-01-28", "--checkpoint-path", str(tmp_path / "r"))
    with pytest.raises(CheckpointError, match="already knows where to go on"):
        _replay(filled, "--from-date", "2026-01-28", "--checkpoint-path", f"{filled.settings.lake.checkpoints}/silver/g1")


def test_on_conflict_is_part_of_what_a_replay_was_begun_with(filled: Lake, tmp_path: Path) -> None:
    flags = ["--from-date", "2026-01-29", "--checkpoint-path", str(tmp_path / "r")]
    _replay(filled, *flags)

    with pytest.raises(CheckpointError, match=r"--on-conflict.* give a new path"):
        _replay(filled, *flags, on_conflict="update")
    _replay(filled, *flags)


def test_update_corrects_rows_that_differ_from_their_record_and_gold_follows(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], tmp_path: Path
) -> None:
    lake.append(make_record(make_event(), 0), make_record(make_event(event_id="e2"), 1))
    lake.append(make_record(make_event(event_id="e2"), 2))
    lake.run_silver()
    lake.run_gold()
    DeltaTable(lake.path(SILVER)).update(updates={"status_code": "503"}, predicate="event_id = 'e2'")
    lake.run_gold()
    assert sum(row["error_count"] for row in lake.gold()[0]) == 1
    _replay(lake, "--to-date", "2026-01-28", "--checkpoint-path", str(tmp_path / "skip"))
    assert [row["status_code"] for row in lake.rows(SILVER)] == [200, 503]
    _replay(lake, "--to-date", "2026-01-28", "--checkpoint-path", str(tmp_path / "update"), on_conflict="update")
    version = lake.version(SILVER)
    _replay(lake, "--to-date", "2026-01-28", "--checkpoint-path", str(tmp_path / "again"), on_conflict="update")
    lake.run_gold()

    rows = {row["event_id"]: row for row in lake.rows(SILVER)}
    assert [rows[name]["status_code"] for name in ("e1", "e2")] == [200, 200]
    assert lake.version(SILVER) == version
    assert sum(row["error_count"] for row in lake.gold()[0]) == 0
    assert lake.counts() == {"rows_read": 12, "inserted": 2, "duplicate": 1, "already_present": 9}


@pytest.mark.faults
def test_replays_beside_the_running_stream_double_nothing(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], tmp_path: Path
) -> None:
    lake.append(make_record(make_event(event_id="first"), 0))
    query = silver_processing.run(lake.spark, lake.settings, trigger="100 milliseconds")
    sent = 1
    try:
        for turn in range(4):
            same = make_event(event_id=f"same-{turn}")
            lake.append(
                make_record(same, sent), make_record(same, sent + 1), make_record(b"{", sent + 2), make_record(None, sent + 3)
            )
            sent += 4
            end = json.dumps({"0": sent})
            _replay(lake, "--ending-offsets", end, "--checkpoint-path", str(tmp_path / f"beside-{turn}"))
        query.processAllAvailable()
        assert query.exception() is None
    finally:
        query.stop()

    counts = lake.counts()
    assert len(lake.rows(SILVER)) == 5
    assert len(lake.rows(DLQ)) == 4
    assert (counts["inserted"], counts["duplicate"], counts["dead_lettered"], counts["tombstone"]) == (5, 4, 4, 4)
    assert counts["rows_read"] - counts["already_present"] == sent
