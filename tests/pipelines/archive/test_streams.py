"""Bronze's rows move to the archive and back under streams, replays and rebuilds, which notice nothing or refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lakehouse.operations.rebuild.plan import plan_rebuild
from lakehouse.operations.rebuild.rebuild import build, compare, remove
from lakehouse.operations.rollback.plan import plan_rollback
from lakehouse.proof.checks import choose_checks, load_checks, run_checks
from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.archive import records
from pipelines.archive.archiving import archive, plan_archive
from pipelines.archive.restoring import plan_restore, restore
from pipelines.bronze.schema import TABLE
from pipelines.bronze.sink import BronzeSink
from pipelines.lake.errors import UsageError
from pipelines.lake.kafka.topic import TOPIC_ID_PROPERTY
from pipelines.lake.tables import BRONZE, DLQ, SILVER
from pipelines.runtime import delta
from pipelines.runtime.flags import job_parser
from pipelines.silver import replay as silver_replay
from pipelines.silver import silver_processing

if TYPE_CHECKING:
    from tests.conftest import Copy
    from tests.pipelines.conftest import Lake

Make = Callable[..., dict[str, Any]]
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = datetime(2026, 4, 29, 12, tzinfo=UTC)
"""The 28th is too old for Bronze, the 29th is not."""


@pytest.fixture
def filled(lake: Lake, made_once: Copy, make_event: Make, make_record: Make) -> Lake:
    """Bronze as its job makes it, with a file that holds two days; a copy, a tombstone and a dead letter, read by Silver."""

    def make(folder: Path) -> None:
        first = type(lake)(lake.spark, folder)
        delta.ensure_table(lake.spark, TABLE, first.path(BRONZE), {TOPIC_ID_PROPERTY: "topic-1"})
        old = [make_record(make_event(event_id=f"a{n}"), n) for n in range(4)]
        first.append(*old, make_record(make_event(event_id="a0"), 4), make_record(None, 5), make_record(b"{", 6))
        first.append(make_record(make_event(event_id="a9"), 7), make_record(make_event(event_id="b1"), 8, at=T0 + DAY))
        first.run_silver()

    made_once(lake.folder, make)
    return lake


def _archive(lake: Lake) -> int:
    plan = plan_archive(lake.settings, None, NOW)
    return sum(archive(lake.settings, plan, f"run{lake.version(BRONZE)}", NOW, lambda _: None).removed.values())


def _put_back(lake: Lake) -> int:
    return restore(lake.settings, plan_restore(lake.settings, T0.date(), T0.date()), "back")


def _content(lake: Lake) -> list[Any]:
    return [lake.rows(SILVER), lake.rows(DLQ), lake.counts()]


def _replay(lake: Lake, checkpoint: Path, *flags: str) -> None:
    args = job_parser("").parse_args([*flags, "--checkpoint-path", str(checkpoint)])
    silver_replay.replay(lake.spark, lake.settings, args, threading.Event())


def test_stream_goes_on_over_the_archiving_and_the_restore_and_reads_nothing_twice(
    filled: Lake, make_event: Make, make_record: Make
) -> None:
    before = _content(filled)
    assert _archive(filled) == 8
    assert [row["_kafka_offset"] for row in filled.rows(BRONZE)] == [8]
    filled.run_silver()
    assert _put_back(filled) == 8
    filled.run_silver()
    assert _content(filled) == before

    filled.append(make_record(make_event(event_id="b2"), 9, at=T0 + DAY), make_record(make_event(event_id="a1"), 10, at=T0 + DAY))
    filled.run_silver()
    assert {row["event_id"] for row in filled.rows(SILVER)} == {"a0", "a1", "a2", "a3", "a9", "b1", "b2"}
    counts = filled.counts()
    assert (counts["rows_read"], counts["duplicate"]) == (before[2]["rows_read"] + 2, before[2]["duplicate"] + 1)
    # Spark reads what was rewritten, and the table is as it was made.
    assert filled.spark.read.format("delta").load(filled.path(BRONZE)).where("_event_date = '2026-01-29'").count() == 3
    assert delta.table_property(filled.spark, filled.path(BRONZE), "delta.appendOnly") == "true"
    assert delta.table_property(filled.spark, filled.path(BRONZE), TOPIC_ID_PROPERTY) == "topic-1"


def test_running_stream_survives_the_archiving(filled: Lake, make_event: Make, make_record: Make) -> None:
    query = silver_processing.run(
        filled.spark, filled.settings, checkpoint_path=f"{filled.folder}/checkpoints/silver/g1", trigger="500 milliseconds"
    )
    try:
        assert _archive(filled) == 8
        filled.append(make_record(make_event(event_id="b2"), 9, at=T0 + DAY))
        query.processAllAvailable()
        assert _put_back(filled) == 8
        filled.append(make_record(make_event(event_id="b3"), 10, at=T0 + DAY))
        query.processAllAvailable()
        assert query.exception() is None
    finally:
        query.stop()
    assert {"b2", "b3"} <= {row["event_id"] for row in filled.rows(SILVER)}
    assert filled.counts()["rows_read"] == 11


def test_new_checkpoint_over_an_archive_loses_nothing_and_doubles_nothing(filled: Lake) -> None:
    before = _content(filled)
    _archive(filled)
    filled.run_silver("g2")
    after = _content(filled)
    assert after[:2] == before[:2]
    assert {**after[2], "already_present": 0} == {**before[2], "already_present": 0, "rows_read": before[2]["rows_read"] + 1}


def test_rebuild_and_replay_of_archived_days_are_refused_then_exact_after_the_restore(filled: Lake, tmp_path: Path) -> None:
    before = _content(filled)
    _archive(filled)
    ledger = filled.counts()
    told = "8 records of 2026-01-28 to 2026-01-28 .* in Bronze's archive alone"
    with pytest.raises(UsageError, match=told):
        plan_rebuild(filled.settings, "silver", None, swap=False)
    for number, flags in enumerate((["--to-date", "2026-01-28"], ["--ending-offsets", '{"0":9}'])):
        with pytest.raises(UsageError, match=told):
            _replay(filled, tmp_path / f"refused-{number}", *flags)
    assert filled.counts() == ledger
    assert not list(tmp_path.glob("refused-*"))
    _replay(filled, tmp_path / "young", "--from-date", "2026-01-29")

    _put_back(filled)
    _replay(filled, tmp_path / "old", "--to-date", "2026-01-28")
    assert _content(filled)[:2] == before[:2]
    plan = plan_rebuild(filled.settings, "silver", None, swap=False)
    build(filled.spark, filled.settings, plan, lambda _: None, threading.Event())
    assert [one.is_none for one in compare(filled.spark, filled.settings, plan, lambda _: None)] == [True, True]
    remove(plan.folder)


def test_rollback_of_dead_letters_whose_records_are_archived_is_refused_until_the_restore(filled: Lake) -> None:
    _archive(filled)
    with pytest.raises(UsageError, match=r"8 records of 2026-01-28 .* would have to be read again are in Bronze's archive alone"):
        plan_rollback(filled.settings, str(DLQ), 0)
    _put_back(filled)
    assert plan_rollback(filled.settings, str(DLQ), 0).bronze_version == 0


def test_checks_and_invariants_stay_green(filled: Lake) -> None:
    _archive(filled)
    assert {result.verdict for result in verify(filled.settings, VerifyOptions()) if result.id in ("I2", "I7", "I8", "I13")} == {
        "holds"
    }
    names = ("conservation", "silver_without_bronze", "orphan_dead_letters", "bronze_metadata", "bronze_duplicates")
    checks = choose_checks(load_checks(), names)
    tables = frozenset().union(*(check.tables for check in checks))
    try:
        delta.register_tables(filled.spark, filled.settings)
        assert tables <= {str(name) for name in delta.register_tables(filled.spark, filled.settings)}
        assert {result.outcome for result in run_checks(filled.spark, checks)} == {"passed"}
    finally:
        for layer in ("bronze", "silver", "gold", "ops"):
            filled.spark.sql(f"DROP DATABASE IF EXISTS {layer} CASCADE")


def test_bronze_drops_what_it_reads_again_and_the_archive_has(filled: Lake) -> None:
    _archive(filled)
    nothing: Any = None  # only what is archived is asked for
    archived = lambda: records.ranges(records.rows(filled.settings))  # noqa: E731
    sink = BronzeSink("", nothing, nothing, nothing, nothing, nothing, nothing, archived)
    rows = filled.spark.createDataFrame(
        [(0, offset) for offset in (0, 6, 7, 8, 20)], "_kafka_partition int, _kafka_offset bigint"
    )
    kept = sink._drop_archived(rows, {0: 0}, {0: 21}).collect()
    assert sorted(row["_kafka_offset"] for row in kept) == [8, 20]
