"""Silver and Gold built anew beside the live tables: what differs is counted, and the swap mends it."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from delta.tables import DeltaTable as SparkTable
from deltalake import DeltaTable
from rich.console import Console

from lakehouse.commands.cli import main
from lakehouse.commands.rebuild import show_result
from lakehouse.operations.checkpoints.rebuild import plan_rebuild as plan_checkpoint
from lakehouse.operations.checkpoints.rebuild import write_rebuild as write_checkpoint
from lakehouse.operations.rebuild import plan as rebuild_plan
from lakehouse.operations.rebuild.plan import plan_rebuild
from lakehouse.operations.rebuild.rebuild import Difference, build, compare, remove
from lakehouse.operations.rebuild.swap import Swapped, swap
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.errors import UsageError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.tables import ADJUSTMENTS, BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER
from tests.failing import dies_at

if TYPE_CHECKING:
    from tests.conftest import Copy
    from tests.pipelines.conftest import Lake

Make = Callable[..., dict[str, Any]]
HOUR = timedelta(hours=1)
DAY = date(2026, 1, 28)


@pytest.fixture
def filled(lake: Lake, made_once: Copy, make_event: Make, make_record: Make) -> Lake:
    """Four events, a copy, a replacement, a tombstone and two dead letters, aggregated."""

    def make(folder: Path) -> None:
        first = type(lake)(lake.spark, folder)
        events = [make_event(event_id=f"e{number}", customer_id=f"c{number % 2}") for number in range(4)]
        at = make_record(None, 0)["_kafka_timestamp"]
        first.append(*(make_record(one, number, at=at + HOUR) for number, one in enumerate(events)), make_record(b"{", 4))
        first.run_silver()
        copies = make_record(events[0], 5, at=at), make_record(events[1], 6, at=at + 2 * HOUR)
        first.append(*copies, make_record(None, 7), make_record(b"[", 8))
        first.run_silver()
        first.run_gold()

    made_once(lake.folder, make)
    return lake


def _state(lake: Lake) -> list[Any]:
    counts = lake.counts()
    # Whether a copy came after its survivor or made room for it depends on how batches are cut; how many there are does not.
    copies = counts.pop("duplicate", 0) + counts.pop("replaced", 0)
    counts = {**{name: counts.get(name) for name in ("inserted", "tombstone", "dead_lettered")}, "copies": copies}
    letters = lake.rows(DLQ, without=("_dead_lettered_at", "_last_attempt_at"))
    return [lake.rows(SILVER, without=("_processed_at",)), letters, counts, lake.gold()]


def _rebuild(lake: Lake, layer: str) -> tuple[dict[str, Difference], Callable[[], Swapped]]:
    plan = plan_rebuild(lake.settings, layer, None, swap=True)
    if not plan.is_done:
        build(lake.spark, lake.settings, plan, lambda _: None, Event())
    found = compare(lake.spark, lake.settings, plan, lambda _: None)

    def take_over() -> Swapped:
        done = swap(lake.spark, lake.settings, plan, found, run_id="r1", now=datetime.now(UTC))
        remove(plan.folder)
        return done

    return {str(one.table): one for one in found}, take_over


@pytest.mark.faults
def test_sound_silver_equals_its_rebuild_and_is_left_alone(filled: Lake) -> None:
    before, versions = _state(filled), [filled.version(table) for table in (SILVER, LEDGER)]
    found, take_over = _rebuild(filled, "silver")

    assert [(one.equal, one.is_none) for one in found.values()] == [(4, True), (2, True)]
    assert plan_rebuild(filled.settings, "silver", None, swap=True).is_done
    done = take_over()
    assert (done.versions, done.letters_added, done.letters_closed, done.ledger_rows) == ({}, 0, 0, 0)
    assert [filled.version(table) for table in (SILVER, LEDGER)] == versions
    assert _state(filled) == before
    assert not Path(f"{filled.settings.lake.root}.rebuild-silver").exists()


def test_damaged_silver_is_counted_and_mended_and_its_checkpoint_goes_on(
    filled: Lake, make_event: Make, make_record: Make
) -> None:
    before, path = _state(filled), filled.path(SILVER)
    stamps = {row["event_id"]: row["_processed_at"] for row in filled.rows(SILVER)}
    rows = filled.spark.read.format("delta").load(path)
    wrong = rows.where("event_id = 'e3'").selectExpr("* EXCEPT (event_id)", "'ghost' AS event_id").select(rows.columns)
    wrong.write.format("delta").mode("append").save(path)
    SparkTable.forPath(filled.spark, path).delete("event_id = 'e1'")
    SparkTable.forPath(filled.spark, path).update("event_id = 'e2'", {"request_bytes": "request_bytes + 1"})
    SparkTable.forPath(filled.spark, filled.path(DLQ)).delete("_kafka_offset = 8")
    SparkTable.forPath(filled.spark, filled.path(DLQ)).update(set={"_status": "'discarded'"})
    found, take_over = _rebuild(filled, "silver")

    assert found[str(SILVER)] == Difference(SILVER, equal=2, only_live=1, only_rebuilt=1, changed=1)
    assert (found[str(DLQ)].equal, found[str(DLQ)].only_rebuilt) == (0, 1)
    done = take_over()
    assert (list(done.versions), done.letters_added) == ([SILVER], 1)
    # The ledger's sums were right; its readers leave out what was written after its last batch.
    started = max(row["started_at"] for row in filled.rows(LEDGER) if row["job"] == "silver")
    assert (done.ledger_rows, max(row["_processed_at"] for row in filled.rows(SILVER))) == (1, started)
    assert {row["_kafka_offset"]: row["_status"] for row in filled.rows(DLQ)} == {4: "discarded", 8: "open"}
    filled.run_gold()
    now = _state(filled)
    assert [now[0], now[2], now[3]] == [before[0], before[2], before[3]]
    kept = {row["event_id"]: row["_processed_at"] for row in filled.rows(SILVER)}
    assert {name for name in stamps if kept[name] == stamps[name]} == {"e0", "e3"}
    filled.append(make_record(make_event(event_id="e1"), 9), make_record(make_event(event_id="e9"), 10))
    filled.run_silver()
    assert [row["event_id"] for row in filled.rows(SILVER, "event_id")] == ["e0", "e1", "e2", "e3", "e9"]
    assert filled.counts()["inserted"] == 5


@pytest.mark.faults
@pytest.mark.parametrize("point", ["after_swap", "after_letters"])
def test_swap_that_died_is_completed_by_the_next(filled: Lake, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    before = _state(filled)
    SparkTable.forPath(filled.spark, filled.path(SILVER)).delete("event_id = 'e1'")
    ledger = DeltaTable(filled.path(LEDGER))
    ledger.delete("job = 'silver' AND batch_id = 1")

    _, take_over = _rebuild(filled, "silver")
    with dies_at(monkeypatch, f"rebuild.{point}"), pytest.raises(InterruptedError):
        take_over()
    _, take_over = _rebuild(filled, "silver")
    take_over()
    filled.run_gold()
    assert _state(filled) == before


@pytest.mark.faults
def test_silver_with_a_lost_file_is_mended(filled: Lake) -> None:
    before = _state(filled)
    Path(DeltaTable(filled.path(SILVER)).file_uris()[0]).unlink()
    found, take_over = _rebuild(filled, "silver")

    assert not found[str(SILVER)].readable
    take_over()
    assert _state(filled) == before


@pytest.mark.faults
def test_flood_of_dead_letters_that_was_accepted_does_not_stop_the_rebuild(
    lake: Lake, make_event: Make, make_record: Make
) -> None:
    lake.changes = {"breaker.enabled": False}
    lake.append(make_record(make_event(), 0), *(make_record(b"{", offset) for offset in range(1, 9)))
    lake.run_silver()
    lake.changes = {"breaker.min_records": 5}
    found, take_over = _rebuild(lake, "silver")

    assert [(one.equal, one.is_none) for one in found.values()] == [(1, True), (8, True)]
    assert take_over().versions == {}


def test_rebuild_looks_for_poison_at_the_first_failure(filled: Lake) -> None:
    settings = plan_rebuild(filled.settings, "silver", None, swap=False).settings(filled.settings)
    assert (settings.retries.attempts, settings.breaker.enabled) == (1, False)


@pytest.mark.faults
@pytest.mark.parametrize("is_built", [False, True])
def test_lost_dead_letters_are_refused_before_anything_is_swapped(filled: Lake, *, is_built: bool) -> None:
    SparkTable.forPath(filled.spark, filled.path(SILVER)).delete("event_id = 'e1'")
    SparkTable.forPath(filled.spark, filled.path(DLQ)).update("_kafka_offset = 8", {"_status": "'discarded'"})
    before = [filled.version(table) for table in (SILVER, DLQ, LEDGER)]
    if is_built:
        _rebuild(filled, "silver")
    lost = max(DeltaTable(filled.path(DLQ)).file_uris(), key=lambda path: Path(path).stat().st_mtime)
    Path(lost).unlink()
    with pytest.raises(UsageError, match=r"what was decided about its letters; restore .*playbooks/full-rebuild\.md"):
        _rebuild(filled, "silver")
    assert [filled.version(table) for table in (SILVER, DLQ, LEDGER)] == before
    # As the playbook says: the lost file's letters are made anew, open.
    assert len(DeltaTable(filled.path(DLQ)).repair()["files_removed"]) == 1
    _, take_over = _rebuild(filled, "silver")
    assert (list((done := take_over()).versions), done.letters_added) == ([SILVER], 1)
    assert {row["_kafka_offset"]: row["_status"] for row in filled.rows(DLQ)} == {4: "open", 8: "open"}
    assert (filled.counts()["dead_lettered"], filled.counts()["inserted"]) == (2, 4)


@pytest.mark.faults
def test_dead_letters_whose_folder_was_moved_away_are_made_anew(filled: Lake, make_event: Make, make_record: Make) -> None:
    before = _state(filled)
    Path(filled.path(DLQ)).rename(filled.folder / "aside")
    _, take_over = _rebuild(filled, "silver")
    assert take_over().letters_added == 2
    assert _state(filled) == before
    write_checkpoint(plan_checkpoint(filled.settings, "silver"))
    filled.append(make_record(make_event(event_id="new"), 9), make_record(b"]", 10))
    filled.run_silver("g2")
    assert (filled.counts()["inserted"], filled.counts()["dead_lettered"]) == (5, 3)


@pytest.mark.faults
def test_lost_bills_are_refused_before_anything_is_swapped(filled: Lake) -> None:
    reconcile(filled.spark, filled.settings, Paths.of(filled.settings), DAY, datetime(2026, 2, 1, tzinfo=UTC))
    SparkTable.forPath(filled.spark, filled.path(GOLD_HOURLY)).delete("customer_id = 'c1'")
    version = filled.version(GOLD_HOURLY)
    for path in DeltaTable(filled.path(GOLD_DAILY)).file_uris():
        Path(path).unlink()
    with pytest.raises(UsageError, match="no other table has issued bills"):
        _rebuild(filled, "gold")
    assert filled.version(GOLD_HOURLY) == version


@pytest.mark.faults
def test_letters_that_somebody_else_wrote_are_removed(filled: Lake) -> None:
    before, path = _state(filled), filled.path(DLQ)
    letters = filled.spark.read.format("delta").load(path)
    letter = letters.where("_kafka_offset = 4").localCheckpoint()
    strays = [
        letter,
        letter.selectExpr("* EXCEPT (_status)", "'replayed' AS _status").select(letters.columns),
        letter.selectExpr("* EXCEPT (_kafka_offset)", "99L AS _kafka_offset").select(letters.columns),
        letter.selectExpr("* EXCEPT (_kafka_offset)", "0L AS _kafka_offset").select(letters.columns),
    ]
    for stray in strays:
        stray.write.format("delta").mode("append").save(path)
    SparkTable.forPath(filled.spark, path).update("_kafka_offset = 8", {"_raw_value": "cast('other' AS binary)"})
    SparkTable.forPath(filled.spark, path).update("_kafka_offset = 8", {"_status": "'discarded'"})
    _, take_over = _rebuild(filled, "silver")
    done = take_over()

    # Two copies, two without a record of these bytes, and the discarded one, whose record is judged anew.
    assert (done.letters_removed, done.letters_added, done.ledger_rows) == (5, 1, 0)
    assert _state(filled)[1:] == before[1:]
    _, take_over = _rebuild(filled, "silver")
    version = filled.version(DLQ)
    assert take_over().letters_removed == 0
    assert filled.version(DLQ) - version <= 1


@pytest.mark.faults
def test_column_that_somebody_added_stays_theirs(filled: Lake, make_event: Make, make_record: Make) -> None:
    filled.append(make_record(make_event(event_id="other", event_timestamp="2026-01-27T10:00:00Z"), 9), make_record(b"]", 10))
    filled.run_silver()
    filled.run_gold()
    reconcile(filled.spark, filled.settings, Paths.of(filled.settings), DAY, datetime(2026, 2, 1, tzinfo=UTC))
    for table in (SILVER, DLQ, GOLD_HOURLY, GOLD_DAILY):
        filled.spark.sql(f"ALTER TABLE delta.`{filled.path(table)}` ADD COLUMNS (note string)")
        SparkTable.forPath(filled.spark, filled.path(table)).update(set={"note": "'mine'"})
    before = [filled.rows(table, without=("_processed_at", "_updated_at", "silver_version")) for table in (SILVER, DLQ)]
    gold = filled.gold()
    SparkTable.forPath(filled.spark, filled.path(SILVER)).delete("event_id = 'e1'")
    SparkTable.forPath(filled.spark, filled.path(SILVER)).update("event_id = 'e2'", {"request_bytes": "request_bytes + 1"})
    SparkTable.forPath(filled.spark, filled.path(DLQ)).delete("_kafka_offset = 10")
    _, take_over = _rebuild(filled, "silver")
    assert take_over().letters_added == 1
    for table in (GOLD_HOURLY, GOLD_DAILY):
        SparkTable.forPath(filled.spark, filled.path(table)).update(
            "coalesce({}, '') <> 'final'".format("billing_status" if table == GOLD_DAILY else "NULL"), {"event_count": "7"}
        )
    _, take_over = _rebuild(filled, "gold")
    assert set(take_over().versions) == {GOLD_HOURLY, GOLD_DAILY}

    assert {row["event_id"]: row["note"] for row in filled.rows(SILVER)} == {
        **{row["event_id"]: "mine" for row in before[0]},
        "e1": None,
    }
    assert {row["_kafka_offset"]: row["note"] for row in filled.rows(DLQ)} == {4: "mine", 8: "mine", 10: None}
    assert filled.gold() == gold


@pytest.mark.faults
def test_field_that_the_schema_files_have_since_is_added(filled: Lake) -> None:
    schemas = filled.folder / "schemas"
    shutil.copytree(filled.settings.schemas_dir, schemas)
    schema = json.loads((schemas / "1.0.json").read_text())
    field = {"name": "plan", "type": "string", "required": False, "max_length": 8, "doc": "Plan of the customer."}
    schema |= {"version": "1.1", "fields": [*schema["fields"], field]}
    (schemas / "1.1.json").write_text(json.dumps(schema))
    SparkTable.forPath(filled.spark, filled.path(SILVER)).delete("event_id = 'e1'")
    new = type(filled)(filled.spark.newSession(), filled.folder, {"schemas_dir": str(schemas)})
    read = read_schemas(new.settings.schemas_dir)
    new.spark.conf.set("spark.sql.catalog.events.fields", read.ddl())
    new.spark.conf.set("spark.sql.catalog.events.schemas", read.rules())
    _, take_over = _rebuild(new, "silver")
    take_over()
    assert [(row["event_id"], row["plan"]) for row in filled.rows(SILVER, "event_id", "plan")] == [
        (f"e{number}", None) for number in range(4)
    ]


@pytest.mark.faults
def test_swap_that_died_over_a_lost_file_leaves_gold_a_version_to_go_on_from(
    filled: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _state(filled)
    Path(DeltaTable(filled.path(SILVER)).file_uris()[0]).unlink()
    _, take_over = _rebuild(filled, "silver")
    with dies_at(monkeypatch, "rebuild.after_swap"), pytest.raises(InterruptedError):
        take_over()
    _, take_over = _rebuild(filled, "silver")
    done = take_over()
    assert done.has_lost_files
    show_result(Console(), plan_rebuild(filled.settings, "silver", None, swap=True), [], done)
    assert "lakehouse checkpoint rebuild gold" in capsys.readouterr().out
    _rebuild(filled, "gold")[1]()
    checkpoint = plan_checkpoint(filled.settings, "gold")
    write_checkpoint(checkpoint)
    filled.run_gold("g2")
    assert _state(filled) == before


@pytest.mark.faults
def test_gold_is_mended_but_for_issued_bills(filled: Lake, make_event: Make, make_record: Make) -> None:
    paths = Paths.of(filled.settings)
    other = make_event(event_id="other", event_timestamp="2026-01-27T10:00:00Z")
    filled.append(make_record(other, 9))
    filled.run_silver()
    filled.run_gold()
    reconcile(filled.spark, filled.settings, paths, DAY, datetime(2026, 2, 1, tzinfo=UTC))
    filled.append(make_record(make_event(event_id="late"), 10))
    filled.run_silver()
    filled.run_gold()
    reconcile(filled.spark, filled.settings, paths, DAY, datetime(2026, 2, 2, tzinfo=UTC))
    before, adjustments = filled.gold(), filled.rows(ADJUSTMENTS)
    assert len(adjustments) == 1
    stamps = filled.rows(GOLD_HOURLY, "_updated_at")
    found, take_over = _rebuild(filled, "gold")
    assert [(one.equal, one.is_none) for one in found.values()] == [(4, True), (1, True)]
    assert take_over().versions == {}
    for table in (GOLD_HOURLY, GOLD_DAILY):
        SparkTable.forPath(filled.spark, filled.path(table)).update(
            "event_count > 0 AND coalesce({}, '') <> 'final'".format("billing_status" if table == GOLD_DAILY else "NULL"),
            {"event_count": "7"},
        )
    found, take_over = _rebuild(filled, "gold")
    assert [one.changed for one in found.values()] == [4, 1]
    assert set(take_over().versions) == {GOLD_HOURLY, GOLD_DAILY}
    assert filled.gold() == before
    assert filled.rows(ADJUSTMENTS) == adjustments
    assert len(filled.rows(GOLD_HOURLY, "_updated_at")) == len(stamps)


@pytest.mark.faults
def test_live_table_that_changes_meanwhile_is_not_swapped(filled: Lake, make_event: Make, make_record: Make) -> None:
    _, take_over = _rebuild(filled, "silver")
    filled.append(make_record(make_event(event_id="new"), 9))
    filled.run_silver()
    version = filled.version(SILVER)
    with pytest.raises(UsageError, match="something still writes to it"):
        take_over()
    assert filled.version(SILVER) == version


@pytest.mark.faults
def test_stream_that_runs_while_the_plan_is_made_is_noticed(
    filled: Lake, make_event: Make, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = rebuild_plan._open
    late = [make_record(make_event(event_id="late"), 9)]

    def open_then_write(path: str) -> Any:
        table = opened(path)
        if late:
            filled.append(late.pop())
            filled.run_silver()
        return table

    monkeypatch.setattr(rebuild_plan, "_open", open_then_write)
    _, take_over = _rebuild(filled, "silver")
    with pytest.raises(UsageError, match="something still writes to it"):
        take_over()


def test_rebuild_of_other_code_is_not_taken_over(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    project = filled.folder / "project"
    (project / "pipelines").mkdir(parents=True)
    (project / "pipelines" / "rules.py").write_text("LIMIT = 599")
    monkeypatch.setattr(rebuild_plan, "PROJECT", project)
    plan = plan_rebuild(filled.settings, "silver", None, swap=True)
    Path(plan.folder).mkdir()
    (Path(plan.folder) / rebuild_plan.MANIFEST).write_text(plan.manifest("built"))
    assert plan_rebuild(filled.settings, "silver", None, swap=True).is_done
    (project / "pipelines" / "rules.py").write_text("LIMIT = 600")
    assert not plan_rebuild(filled.settings, "silver", None, swap=True).is_done


def test_swap_needs_room_on_the_disk_of_the_lake(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    root, elsewhere = filled.settings.lake.root, str(filled.folder / "elsewhere")
    usage = namedtuple("usage", "total used free")
    size = plan_rebuild(filled.settings, "silver", None, swap=False).size
    # Each has room for one copy, with the margin, and not for two.
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, int(size * 1.5)))
    assert plan_rebuild(filled.settings, "silver", elsewhere, swap=False)
    with pytest.raises(UsageError, match="make room"):
        plan_rebuild(filled.settings, "silver", elsewhere, swap=True)
    monkeypatch.setattr(rebuild_plan, "_device", lambda folder: folder == elsewhere)
    assert plan_rebuild(filled.settings, "silver", elsewhere, swap=True)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(0, 0, 0 if str(place) == root else size * 9))
    with pytest.raises(UsageError, match=f"at {root}, but 0 MB are free"):
        plan_rebuild(filled.settings, "silver", elsewhere, swap=True)


def test_what_cannot_be_rebuilt_is_refused_and_nothing_changes(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> list[Path]:
        return sorted(filled.folder.rglob("*"))

    foreign = filled.folder / "foreign"
    foreign.mkdir()
    (foreign / "precious.txt").write_text("x")
    before = names()
    with pytest.raises(UsageError, match="expected silver or gold"):
        plan_rebuild(filled.settings, "bronze", None, swap=False)
    with pytest.raises(UsageError, match="holds something else than a rebuild"):
        plan_rebuild(filled.settings, "silver", str(foreign), swap=False)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 10, 0))
    with pytest.raises(UsageError, match="make room"):
        plan_rebuild(filled.settings, "silver", None, swap=False)
    assert names() == before


def test_dry_run_says_counts_and_writes_nothing(filled: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    config = filled.folder / "conf.yaml"
    config.write_text(json.dumps({"lake": filled.settings.lake.model_dump(), "schemas_dir": filled.settings.schemas_dir}))
    before = sorted(filled.folder.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["rebuild", "silver", "--swap", "--dry-run", "--config", str(config)])
    printed = capsys.readouterr().out
    assert (ended.value.code, "of bronze.api_usage_events (9 rows)" in printed) == (0, True), printed
    assert sorted(filled.folder.rglob("*")) == before
    assert BRONZE.layer in printed
