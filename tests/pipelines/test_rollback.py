"""A bad publish is taken back: nothing is lost, nothing counted twice, and no old checkpoint goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from delta.tables import DeltaTable as SparkTable
from deltalake import DeltaTable
from pyspark.errors import StreamingQueryException

from lakehouse.commands.cli import main
from lakehouse.operations.rollback.plan import bronze_start, plan_rollback
from lakehouse.operations.rollback.rollback import roll_back
from pipelines.lake.checkpoint.identity import Checkpoint, open_checkpoint
from pipelines.lake.errors import CheckpointError, UsageError
from pipelines.lake.lease.flock import FlockBackend
from pipelines.lake.lease.protocol import HeldLease, Holder
from pipelines.lake.ledger.ledger import BatchRow, Ledger, LedgerRow
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER
from pipelines.runtime import delta
from pipelines.runtime.guards.checkpoint import refuse_restored
from pipelines.runtime.guards.start import Start
from pipelines.silver import silver_processing
from pipelines.silver.dead_letters.retention import strip_closed
from tests.failing import dies_at

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Make = Callable[..., dict[str, Any]]
HOUR = timedelta(hours=1)


def _fill(lake: Lake, make_event: Make, make_record: Make) -> None:
    """Three Bronze commits, each a batch of Silver: version 1 is batch 0, 2 and 3 are batch 2; batch 1 has a copy only."""
    one, two, three = (make_event(event_id=name) for name in ("e1", "e2", "e3"))
    at = make_record(one, 0)["_kafka_timestamp"]
    late = make_event(event_id="e4", event_timestamp="2026-01-28T07:00:00Z")
    commits = [
        [make_record(one, 0), make_record(two, 1, at=at + HOUR), make_record(None, 2)],
        [make_record(one, 3), make_record(b"{", 4)],
        # The copy of e2 is the earlier one: it takes the row's place.
        [make_record(two, 5, at=at + HOUR / 2), make_record(three, 6), make_record(late, 7), make_record(b"[", 8)],
    ]
    for number, records in enumerate(commits):
        lake.append(*records)
        offsets = {"0": [records[0]["_kafka_offset"], records[-1]["_kafka_offset"] + 1]}
        row = BatchRow("bronze", "b1", number, offsets, rows_read=len(records), inserted=len(records))
        Ledger(lake.settings).record(row.with_versions({str(BRONZE): number}))
        lake.run_silver()


def _silver(lake: Lake) -> list[Any]:
    counts = lake.counts()
    # Whether a copy came after its survivor or made room for it depends on how batches are cut; how many there are does not.
    copies = counts.pop("duplicate", 0) + counts.pop("replaced", 0)
    counts = {**{name: counts.get(name, 0) for name in ("inserted", "tombstone", "dead_lettered")}, "copies": copies}
    letters = lake.rows(DLQ, without=("_dead_lettered_at", "_last_attempt_at"))
    return [lake.rows(SILVER, without=("_processed_at",)), letters, counts]


def _roll_back(lake: Lake, table: Any, to: int, **options: Any) -> Any:
    plan = plan_rollback(lake.settings, str(table), to)
    options = {"reason": "a test", "repair": False, "stop": Event(), **options}
    return roll_back(lake.spark, lake.settings, plan, progress=lambda _: None, **options)


def _open(lake: Lake, name: str) -> Checkpoint:
    spark, (bronze, silver) = lake.spark, (lake.path(table) for table in (BRONZE, SILVER))
    ids: dict[str, Any] = {"source": delta.table_id(spark, bronze), "target": delta.table_id(spark, silver)}
    checkpoint = open_checkpoint(f"{lake.settings.lake.checkpoints}/silver/{name}", job="silver", **ids)
    with checkpoint.lock:
        refuse_restored(Start(spark=spark, settings=lake.settings, job="silver", checkpoint=checkpoint))
    return checkpoint


@pytest.mark.faults
def test_silver_is_read_again_and_everything_adds_up(lake: Lake, make_event: Make, make_record: Make) -> None:
    _fill(lake, make_event, make_record)
    lake.run_gold()
    before, gold = _silver(lake), lake.gold()
    assert before[2] == {"inserted": 4, "copies": 2, "dead_lettered": 2, "tombstone": 1}
    assert lake.counts()["replaced"] == 1
    assert _open(lake, "g1").generation
    plan = plan_rollback(lake.settings, str(SILVER), 1)
    assert ([row.batch_id for row in plan.batches], plan.bronze_version, plan.rows, plan.rows_then) == ([2], 2, 4, 2)
    done = _roll_back(lake, SILVER, 1, repair=True)

    assert _silver(lake) == before
    assert all(row["rows_read"] == sum(row[name] for name in _PARTS) for row in lake.rows(LEDGER) if row["job"] == "silver")
    restore = next(commit for commit in DeltaTable(lake.path(SILVER)).history() if commit["operation"] == "RESTORE")
    said = {"from": plan.version, "to": 1, "reason": "a test"}
    assert (restore["version"], json.loads(restore["userMetadata"])) == (done.version, {"rollback": said})
    with pytest.raises(CheckpointError, match="start a new generation"):
        _open(lake, "g1")
    assert done.checkpoint.path.endswith("/silver/g2")
    assert json.loads(_open(lake, "g2").starting) == {"bronze_version": 2}
    lake.run_gold()
    assert lake.gold() == gold


_PARTS = ("inserted", "replaced", "duplicate", "already_present", "dead_lettered", "tombstone")


@pytest.mark.faults
@pytest.mark.parametrize("point", ["after_restore", "after_void"])
def test_rollback_that_died_is_completed_by_the_same_command(
    lake: Lake, make_event: Make, make_record: Make, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    _fill(lake, make_event, make_record)
    before = _silver(lake)

    with dies_at(monkeypatch, f"rollback.{point}"), pytest.raises(InterruptedError):
        _roll_back(lake, SILVER, 0)
    restored = lake.version(SILVER)
    with pytest.raises(CheckpointError):
        _open(lake, "g1")
    _roll_back(lake, SILVER, 0)
    assert lake.version(SILVER) == restored
    voided = [row for row in lake.rows(LEDGER) if row["generation"].startswith("void:")]
    assert [(row["batch_id"], row["inserted"], row["dead_lettered"]) for row in voided] == [(0, -4, 0)]
    _roll_back(lake, SILVER, 0, repair=True)
    assert _silver(lake) == before


@pytest.mark.faults
def test_dead_letters_are_rejected_again_after_their_table_is_rolled_back(
    lake: Lake, make_event: Make, make_record: Make
) -> None:
    _fill(lake, make_event, make_record)
    before = _silver(lake)
    plan = plan_rollback(lake.settings, str(DLQ), 1)
    assert ([row.batch_id for row in plan.batches], plan.bronze_version) == ([2], 2)
    _roll_back(lake, DLQ, 1, repair=True)

    assert _silver(lake) == before
    with pytest.raises(CheckpointError, match="api_usage_events_dlq was restored"):
        _open(lake, "g1")


@pytest.mark.faults
def test_dead_letters_are_rejected_again_also_in_two_steps_and_after_a_first_repair(
    lake: Lake, make_event: Make, make_record: Make
) -> None:
    _fill(lake, make_event, make_record)
    before = _silver(lake)
    _roll_back(lake, DLQ, 0)
    assert lake.rows(DLQ) == []
    plan = plan_rollback(lake.settings, str(DLQ), 0)
    assert (plan.done_at, plan.batches, plan.bronze_version) == (lake.version(DLQ), [], 1)
    _roll_back(lake, DLQ, 0, repair=True)
    assert _silver(lake) == before

    # Not to be taken for the one before: the repair has written since, and is taken back as well.
    _roll_back(lake, DLQ, 0)
    _roll_back(lake, DLQ, 0, repair=True)
    assert _silver(lake) == before


@pytest.mark.faults
@pytest.mark.parametrize("point", ["rollback.after_restore", "rollback.after_void", "silver.before_append"])
def test_rollback_of_dead_letters_that_died_is_completed_by_the_same_command(
    lake: Lake, make_event: Make, make_record: Make, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    _fill(lake, make_event, make_record)
    before = _silver(lake)

    with dies_at(monkeypatch, point), pytest.raises((InterruptedError, StreamingQueryException)):
        _roll_back(lake, DLQ, 0, repair=True)
    assert lake.rows(DLQ) == []
    _roll_back(lake, DLQ, 0, repair=True)
    assert _silver(lake) == before


@pytest.mark.faults
def test_silver_is_read_again_where_its_batches_had_not_read_in_order(lake: Lake, make_event: Make, make_record: Make) -> None:
    _append_one_by_one(lake, [make_record(make_event(event_id="e0"), 0)])
    lake.run_silver()
    _append_one_by_one(lake, [make_record(make_event(event_id=f"e{offset}"), offset) for offset in (1, 2)])
    checkpoint = f"{lake.folder}/checkpoints/silver/late"
    late = silver_processing.run(
        lake.spark, lake.settings, checkpoint_path=checkpoint, trigger="available-now", starting_offsets='{"0": 2}'
    )
    late.awaitTermination()
    good = lake.version(SILVER)
    lake.run_silver()
    before = _silver(lake)
    assert before[2]["inserted"] == 3
    _roll_back(lake, SILVER, good)
    assert len(lake.rows(SILVER)) == 2
    _roll_back(lake, SILVER, good, repair=True)
    assert _silver(lake) == before


@pytest.mark.faults
def test_records_that_filled_a_hole_are_read_again(lake: Lake, make_event: Make, make_record: Make) -> None:
    """The batch before had read over their offsets and had seen that they were not there."""
    record = {offset: make_record(make_event(event_id=f"e{offset}"), offset) for offset in range(4)}
    _append_one_by_one(lake, [record[0], record[3]], [0, 4])
    lake.run_silver()
    good = lake.version(SILVER)
    for offset in (1, 2):
        _append_one_by_one(lake, [record[offset]])
        lake.run_silver()
    before = _silver(lake)
    assert before[2]["inserted"] == 4
    # Not 1: by the range that its row has, the first commit could hold them as well.
    assert plan_rollback(lake.settings, str(SILVER), good).bronze_version == 0
    _roll_back(lake, SILVER, good, repair=True)
    assert _silver(lake) == before


def _append_one_by_one(lake: Lake, records: list[dict[str, Any]], offsets: list[int] | None = None) -> None:
    """A commit of Bronze for each record, or one for all where their range `offsets` is given, each with its ledger row."""
    commits = [(records, offsets)] if offsets else [([one], [one["_kafka_offset"], one["_kafka_offset"] + 1]) for one in records]
    for commit, span in commits:
        lake.append(*commit)
        version = lake.version(BRONZE)
        row = BatchRow("bronze", "b1", version, {"0": span}, rows_read=len(commit), inserted=len(commit))
        Ledger(lake.settings).record(row.with_versions({str(BRONZE): version}))


def test_what_was_written_while_the_rollback_waited_for_the_lease_is_not_taken_back(
    lake: Lake, make_event: Make, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(lake, make_event, make_record)
    acquire = FlockBackend.acquire

    def acquire_after_a_writer(backend: FlockBackend, holder: Holder, last_token: int | None = None) -> HeldLease:
        lake.spark.read.format("delta").load(lake.path(DLQ)).limit(1).write.format("delta").mode("append").save(lake.path(DLQ))
        return acquire(backend, holder, last_token)

    with monkeypatch.context() as patch:
        patch.setattr(FlockBackend, "acquire", acquire_after_a_writer)
        with pytest.raises(UsageError, match="has changed since it was looked at"):
            _roll_back(lake, DLQ, 1)
    assert len(lake.rows(DLQ)) == 3


@pytest.mark.faults
def test_letter_that_lost_its_bytes_to_retention_has_them_again_when_it_is_opened(
    lake: Lake, make_event: Make, make_record: Make
) -> None:
    _fill(lake, make_event, make_record)
    good = lake.version(SILVER)
    [bronze] = [row for row in lake.rows(BRONZE) if row["_kafka_offset"] == 4]
    rows = lake.spark.read.format("delta").load(lake.path(SILVER)).where("event_id = 'e3'")
    mended = rows.selectExpr("* EXCEPT (_kafka_offset, event_id)", "4L AS _kafka_offset", "'mended' AS event_id")
    mended.select(rows.columns).write.format("delta").mode("append").save(lake.path(SILVER))
    table = SparkTable.forPath(lake.spark, lake.path(DLQ))
    table.update("_kafka_offset = 4", {"_status": "'replayed'", "_closed_at": "current_timestamp()"})
    assert strip_closed(DeltaTable(lake.path(DLQ)), datetime.now(UTC)) == 1
    SparkTable.forPath(lake.spark, lake.path(BRONZE)).delete("_kafka_offset = 4")
    version = lake.version(SILVER)
    with pytest.raises(UsageError, match="1 dead letters of 2026-01-28 to 2026-01-28 would be open again, but retention"):
        _roll_back(lake, SILVER, good)
    assert lake.version(SILVER) == version

    lake.append(bronze)
    assert _roll_back(lake, SILVER, good).reopened == 1
    letter = next(row for row in lake.rows(DLQ) if row["_kafka_offset"] == 4)
    assert letter["_status"] == "open"
    assert [letter[name] for name in ("_raw_value", "_kafka_key")] == [b"{", bronze["_kafka_key"]]
    assert letter["_kafka_headers"] == bronze["_kafka_headers"]


@pytest.mark.faults
def test_replayed_dead_letter_whose_event_is_taken_back_is_open_again(lake: Lake, make_event: Make, make_record: Make) -> None:
    _fill(lake, make_event, make_record)

    def close(offset: int) -> None:
        table = SparkTable.forPath(lake.spark, lake.path(DLQ))
        closed_at = {"_closed_at": "current_timestamp()"} if "_closed_at" in table.toDF().columns else {}
        table.update(f"_kafka_offset = {offset}", {"_status": "'replayed'", **closed_at})

    close(8)
    rows = lake.spark.read.format("delta").load(lake.path(SILVER)).where("event_id = 'e3'")
    mended = rows.selectExpr("* EXCEPT (_kafka_offset, event_id)", "4L AS _kafka_offset", "'mended' AS event_id")
    mended.select(rows.columns).write.format("delta").mode("append").save(lake.path(SILVER))
    close(4)
    done = _roll_back(lake, SILVER, lake.version(SILVER) - 1)

    assert done.reopened == 1
    assert {row["_kafka_offset"]: row["_status"] for row in lake.rows(DLQ)} == {4: "open", 8: "replayed"}


def test_gold_is_restored_and_its_days_recomputed(lake: Lake, make_event: Make, make_record: Make) -> None:
    _fill(lake, make_event, make_record)
    lake.run_gold()
    gold, good = lake.gold(), lake.version(GOLD_HOURLY)
    SparkTable.forPath(lake.spark, lake.path(GOLD_HOURLY)).update(set={"event_count": "event_count * 2"})
    done = _roll_back(lake, GOLD_HOURLY, good)

    assert [str(day) for day in done.days] == ["2026-01-28"]
    assert lake.gold() == gold
    again = _roll_back(lake, GOLD_HOURLY, 0, repair=True)
    assert len(again.days) == 1
    assert lake.gold() == gold
    assert {row["billing_status"] for row in lake.rows(GOLD_DAILY)} == {"provisional"}


@pytest.mark.faults
def test_closed_day_that_the_gate_refuses_is_named_and_stays_as_restored(
    lake: Lake, make_event: Make, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    _fill(lake, make_event, make_record)
    lake.run_gold()
    # An adjustment is due.
    bill = SparkTable.forPath(lake.spark, lake.path(GOLD_DAILY))
    bill.update(set={"billing_status": "'final'", "event_count": "event_count + 1"})
    daily, suites, config = lake.rows(GOLD_DAILY), lake.folder / "suites", lake.folder / "conf.yaml"
    tree = {"lake": lake.settings.lake.model_dump(), "schemas_dir": lake.settings.schemas_dir, "quality": {"suites": str(suites)}}
    config.write_text(json.dumps(tree))
    words = ["rollback", str(GOLD_HOURLY), "--to", "0", "--repair", "--config", str(config)]
    version = lake.version(GOLD_HOURLY)
    with pytest.raises(SystemExit) as ended:
        main(words)
    # What the gate asks is read before anything is written.
    assert (ended.value.code, lake.version(GOLD_HOURLY)) == (2, version)
    assert "holds no suite of expectations" in capsys.readouterr().err
    suites.mkdir()
    kwargs = {"column": "events", "min_value": 1000}
    one = {"id": "many", "type": "expect_column_values_to_be_between", "kwargs": kwargs, "severity": "blocks"}
    one |= {"says": "There are many events.", "playbook": "stale-data"}
    (suites / "day.yaml").write_text(json.dumps({"audits": "day", "expectations": [one]}))

    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 5
    said = " ".join(capsys.readouterr().out.split())
    assert "1 days were not: the gate before the bill refused them (2026-01-28)" in said
    assert "were recomputed" not in said
    assert "lakehouse quality show --date 2026-01-28" in said
    assert (lake.rows(GOLD_HOURLY), lake.rows(GOLD_DAILY)) == ([], daily)


@pytest.mark.faults
def test_bill_is_never_opened_again(lake: Lake, make_event: Make, make_record: Make) -> None:
    _fill(lake, make_event, make_record)
    lake.run_gold()
    provisional = lake.version(GOLD_DAILY)
    SparkTable.forPath(lake.spark, lake.path(GOLD_DAILY)).update(set={"billing_status": "'final'"})
    with pytest.raises(UsageError, match="before 1 days were closed"):
        plan_rollback(lake.settings, str(GOLD_DAILY), provisional)


def test_what_is_never_rolled_back_is_refused_with_code_2_and_nothing_changes(
    lake: Lake, make_event: Make, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    _fill(lake, make_event, make_record)
    config = lake.folder / "conf.yaml"
    lake_settings = lake.settings.lake.model_dump()
    config.write_text(json.dumps({"lake": lake_settings, "schemas_dir": lake.settings.schemas_dir}))
    tables = (BRONZE, SILVER, DLQ, LEDGER)
    before = [lake.version(table) for table in tables]
    for name, to, said in (
        ("bronze.api_usage_events", "0", "append-only truth"),
        ("gold.billing_adjustments", "0", "issued adjustments stay"),
        ("ops.batch_ledger", "0", "record of what happened"),
        ("silver.no_such_table", "0", "is not a table of the lake"),
        ("gold.api_usage_daily", "0", "There is no Delta table"),
        (str(SILVER), "9", "expected --to from 0 to 2"),
        (str(SILVER), "-1", "expected --to from 0 to 2"),
        (str(SILVER), "2", "is in the middle of a batch"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["rollback", name, "--to", to, "--config", str(config)])
        error = capsys.readouterr().err
        assert (ended.value.code, error.count("\n")) == (2, 1), error
        assert said in error
    with pytest.raises(SystemExit) as ended:
        main(["rollback", str(SILVER), "--to", "1", "--dry-run", "--config", str(config)])
    assert ended.value.code == 0
    assert "read again from version 2 of Bronze" in capsys.readouterr().out
    assert [lake.version(table) for table in tables] == before


@pytest.mark.faults
def test_vacuumed_version_is_refused(lake: Lake, make_event: Make, make_record: Make) -> None:
    _fill(lake, make_event, make_record)
    then, now = (set(DeltaTable(lake.path(SILVER), version=version).file_uris()) for version in (1, 2))
    from pathlib import Path  # noqa: PLC0415

    for uri in then - now:
        Path(uri).unlink()
    assert then - now
    with pytest.raises(UsageError, match="are gone"):
        plan_rollback(lake.settings, str(SILVER), 1)


def test_start_is_the_first_bronze_version_with_a_missing_or_an_unread_record() -> None:
    def row(version: int, **offsets: list[int]) -> LedgerRow:
        read = {name[1:]: found for name, found in offsets.items()}
        return BatchRow("bronze", "b1", version, read, versions={str(BRONZE): version}).committed()

    bronze = [row(1, p0=[0, 10], p1=[0, 5]), row(2, p0=[10, 20], p1=[5, 5]), row(5, p0=[20, 30], p1=[5, 9])]
    kept = {0: [(0, 30)], 1: [(0, 9)]}
    assert bronze_start(bronze, {}, kept) == 5
    assert bronze_start(bronze, {0: [(12, 13)]}, kept) == 2
    assert bronze_start(bronze, {}, {0: [(0, 30)], 1: [(0, 4)]}) == 1
    assert bronze_start(bronze, {0: [(40, 41)]}, kept) == 0
