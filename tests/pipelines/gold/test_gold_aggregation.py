"""The Gold job behind Silver: it follows every change of Silver, and a replay ends in the same rows."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.errors import StreamingQueryException

from lakehouse.operations.rebuild.plan import plan_rebuild
from lakehouse.operations.rebuild.rebuild import build, compare
from lakehouse.operations.rebuild.swap import swap
from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.gold import gold_aggregation, sink
from pipelines.gold.increments.position import position_note
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.errors import CheckpointError, DamagedError, StoppedError, UsageError, own_error
from pipelines.lake.tables import GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER
from pipelines.runtime import delta
from pipelines.runtime.flags import job_parser

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)


def _counts(lake: Lake) -> dict[tuple[int, int], int]:
    return {(row["hour"].day, row["hour"].hour): row["event_count"] for row in lake.rows(GOLD_HOURLY)}


def test_gold_follows_an_event_that_moves_and_a_replay_changes_nothing(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    lake.append(
        make_record(make_event(event_timestamp="2026-01-28T10:00:00Z"), 0, at=T0 + timedelta(hours=2)),
        make_record(make_event(event_id="e2"), 1),
    )
    lake.run_silver()
    lake.run_gold()
    assert _counts(lake) == {(28, 10): 2}
    # An earlier copy with another timestamp takes the row's place: an update that moves it to the day before.
    lake.append(make_record(make_event(event_timestamp="2026-01-27T23:10:00Z"), 0, partition=1, at=T0))
    lake.run_silver()
    lake.run_gold()

    assert _counts(lake) == {(27, 23): 1, (28, 10): 1}
    assert {row["day"].day: row["event_count"] for row in lake.rows(GOLD_DAILY)} == {27: 1, 28: 1}
    gold, times = lake.gold(), lake.rows(GOLD_HOURLY, "hour", "_updated_at")
    lake.run_gold("g2")

    assert lake.gold() == gold
    assert lake.rows(GOLD_HOURLY, "hour", "_updated_at") == times
    assert len({row["generation"] for row in lake.rows(LEDGER) if row["job"] == "gold"}) == 2


def test_gold_of_an_older_version_gets_usage_by_key_with_its_next_batch(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    lake.append(make_record(make_event(), 0), make_record(make_event(event_id="e2", api_key_id="k9"), 1))
    lake.run_silver()
    lake.run_gold()
    # As an older version left it: no such table, and the ledger does not know of one.
    shutil.rmtree(lake.path(GOLD_BY_KEY))
    ledger = DeltaTable(lake.path(LEDGER)).to_pyarrow_table().to_pylist()
    for row in ledger:
        row["versions"] = row["versions"].replace(str(GOLD_BY_KEY), "gold.nothing") if row["versions"] else row["versions"]
    schema = pa.schema(DeltaTable(lake.path(LEDGER)).schema().to_arrow())
    write_deltalake(lake.path(LEDGER), pa.Table.from_pylist(ledger, schema), mode="overwrite")

    lake.run_gold()
    assert _verified(lake) == []
    lake.append(make_record(make_event(event_id="e3", event_timestamp="2026-01-29T12:00:00Z"), 2))
    lake.run_silver()
    lake.run_gold()

    assert sorted(row["event_count"] for row in lake.rows(GOLD_BY_KEY)) == [1, 1, 1]
    assert _verified(lake) == []


def test_usage_by_key_that_a_defect_made_wrong_stops_gold_and_a_rebuild_leads_out(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    lake.append(make_record(make_event(), 0))
    lake.run_silver()
    lake.run_gold()
    path = lake.path(GOLD_BY_KEY)
    newest = next(newest_commits(path, lake.version(GOLD_BY_KEY)))
    ((app_id, held),) = newest.transactions.items()
    # A commit as our own, which takes one event over twice.
    once_more = lake.spark.read.format("delta").load(path)
    note = position_note(lake.version(GOLD_BY_KEY))
    assert delta.advance(once_more, path, app_id=app_id, expected=held, to=held, metadata=note) is not None
    assert _verified(lake) == ["by_key key in several rows"]

    lake.append(make_record(make_event(event_id="e2"), 1))
    lake.run_silver()
    with pytest.raises(StreamingQueryException) as stopped:
        lake.run_gold()
    error = own_error(str(stopped.value))
    assert isinstance(error, DamagedError)
    assert "gold.api_usage_by_key holds another usage than version 2 of Silver gives, for 1 keys from 2026-01-28" in str(error)
    assert error.playbook == "full-rebuild"

    # What is published does not depend on it, and is right.
    assert _counts(lake) == {(28, 10): 2}
    plan = plan_rebuild(lake.settings, "gold", None, swap=True)
    build(lake.spark, lake.settings, plan, lambda _: None, threading.Event())
    swap(lake.spark, lake.settings, plan, compare(lake.spark, lake.settings, plan, lambda _: None), run_id="r", now=T0)
    lake.append(make_record(make_event(event_id="e3"), 2))
    lake.run_silver()
    lake.run_gold()
    assert [row["event_count"] for row in lake.rows(GOLD_BY_KEY)] == [3]
    assert _verified(lake) == []


def _verified(lake: Lake) -> list[str]:
    """What `verify` finds wrong with Gold."""
    [found] = [one for one in verify(lake.settings, VerifyOptions()) if one.id == "I5"]
    return sorted(finding.problem for finding in found.findings)


def test_event_at_the_ends_of_an_hour_is_counted_in_it(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    texts = ["2026-01-28T00:00:00Z", "2026-01-28T23:59:59.999999Z", "2026-01-28T10:59:59.999999Z", "2026-01-28T11:00:00Z"]
    lake.append(*(make_record(make_event(event_id=f"e{n}", event_timestamp=text), n) for n, text in enumerate(texts)))
    lake.run_silver()
    lake.run_gold()

    assert _counts(lake) == {(28, 0): 1, (28, 10): 1, (28, 11): 1, (28, 23): 1}


@pytest.mark.parametrize("text", ["x", "{}", "[]", '{"silver_version": -1}', '{"silver_version": 8}', '{"silver_version": true}'])
def test_wrong_starting_version_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="with n from 0 to 7"):
        gold_aggregation._starting_version(text, 7)


def test_starting_version_is_the_given_one_or_the_first() -> None:
    assert gold_aggregation._starting_version('{"silver_version": 7}', 7) == "7"
    assert gold_aggregation._starting_version(None, 7) == "0"


def test_gold_without_silver_is_one_sentence(lake: Lake) -> None:
    with pytest.raises(UsageError, match="expected the Silver table"):
        lake.run_gold()
    assert not (lake.folder / "lake").exists()


def _replay(lake: Lake, *flags: str) -> None:
    path = str(lake.folder / "checkpoints" / "gold" / "replay")
    args = job_parser("").parse_args([*flags, "--checkpoint-path", path])
    gold_aggregation.replay(lake.spark, lake.settings, args, threading.Event())


class _Killed(BaseException):
    """No error that can be handled: the power went out."""


@pytest.mark.parametrize(
    "flags",
    [
        ["--from-date", "2026-01-28"],
        pytest.param(["--to-date", "9999-12-31", "--from-date", "0001-01-01"], marks=pytest.mark.faults),
    ],
)
def test_replay_that_died_is_gone_on_with_although_silver_went_on(
    flags: list[str], lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_args: Any, **_options: Any) -> None:
        raise _Killed

    lake.append(make_record(make_event(), 0))
    lake.run_silver()
    with monkeypatch.context() as patch:
        patch.setattr(sink, "merge_hourly", die)
        with pytest.raises(_Killed):
            _replay(lake, *flags)
    lake.append(make_record(make_event(event_id="e2", event_timestamp="2026-01-29T12:00:00Z"), 1, at=T0 + timedelta(days=1)))
    lake.run_silver()
    _replay(lake, *flags)

    # As far as it was begun; what came since is the stream's.
    assert _counts(lake) == {(28, 10): 1}
    with pytest.raises(CheckpointError, match="already knows where to go on"):
        _replay(lake, "--from-date", "2026-01-29")


def test_replay_of_days_without_end_recomputes_what_silver_or_gold_has(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    lake.append(make_record(make_event(), 0), make_record(make_event(event_id="e2", event_timestamp="2026-01-29T12:00:00Z"), 1))
    lake.run_silver()
    lake.run_gold()
    DeltaTable(lake.path(SILVER)).delete("event_id = 'e2'")
    DeltaTable(lake.path(GOLD_HOURLY)).update({"event_count": "7"}, predicate="hour < '2026-01-29'")

    _replay(lake, "--from-date", "2026-01-28", "--to-date", "9999-12-31")

    assert _counts(lake) == {(28, 10): 1}
    assert {row["day"].day: row["event_count"] for row in lake.rows(GOLD_DAILY)} == {28: 1}


def test_start_before_silvers_log_is_one_sentence_and_nothing_is_made(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    for number in range(2):
        lake.append(make_record(make_event(event_id=f"e{number}"), number))
        lake.run_silver()
    table = DeltaTable(lake.path(SILVER))
    table.create_checkpoint()
    log = Path(lake.path(SILVER)) / "_delta_log"
    for version in range(table.version()):
        for file in log.glob(f"{version:020d}.*"):
            file.unlink()
    lake.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]

    with pytest.raises(UsageError, match=f"versions from {table.version()} on alone; run `lakehouse checkpoint rebuild gold`"):
        lake.run_gold()
    with pytest.raises(UsageError, match="Gold would begin at version 0"):
        _replay(lake, "--ending-offsets", f'{{"silver_version": {table.version()}}}')
    assert not Path(lake.path(GOLD_HOURLY)).exists()
    assert not (lake.folder / "checkpoints" / "gold").exists()


@pytest.mark.faults
def test_one_day_alone_bounds_a_replay_on_one_side(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    days = ("2026-01-26", "2026-01-28", "2026-01-30")
    lake.append(*(make_record(make_event(event_id=day, event_timestamp=f"{day}T10:00:00Z"), n) for n, day in enumerate(days)))
    lake.run_silver()

    def replayed(name: str, *flags: str) -> list[int]:
        args = job_parser("").parse_args([*flags, "--checkpoint-path", str(lake.folder / name)])
        gold_aggregation.replay(lake.spark, lake.settings, args, threading.Event())
        return sorted(day for day, _ in _counts(lake))

    assert replayed("r1", "--to-date", "2026-01-27") == [26]
    assert replayed("r2", "--from-date", "2026-01-29") == [26, 30]
    assert replayed("r3", "--from-date", "2026-01-27", "--to-date", "9999-12-31") == [26, 28, 30]
    # An hour that Silver has nothing of any more, on a day between two that it has.
    DeltaTable(lake.path(SILVER)).delete("event_id = '2026-01-28'")
    assert replayed("r4", "--from-date", "2026-01-26") == [26, 30]


def test_replay_that_is_stopped_says_so(lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]) -> None:
    lake.append(make_record(make_event(), 0))
    lake.run_silver()
    args = job_parser("").parse_args(["--from-date", "2026-01-28", "--checkpoint-path", str(lake.folder / "r")])
    stop = threading.Event()
    stop.set()

    with pytest.raises(StoppedError, match="before it wrote anything"):
        gold_aggregation.replay(lake.spark, lake.settings, args, stop)
