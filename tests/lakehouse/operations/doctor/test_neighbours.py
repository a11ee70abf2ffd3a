"""What others do to the tables, act by act: the contract, rows changed by hand, derived files; and what is nobody's fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.schema import PrimitiveType

from lakehouse.commands.cli import main as lakehouse
from lakehouse.operations.checkpoints.lake_tables import find_table
from lakehouse.operations.dead_letters.decide import discard
from lakehouse.operations.dead_letters.filters import LetterFilter
from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.facts import Neighbours
from lakehouse.operations.doctor.findings import Finding
from lakehouse.operations.doctor.reading import read_facts
from lakehouse.operations.doctor.reading_neighbours import read_neighbours
from pipelines.lake.contract.contract import ALLOWED_FEATURES, CONTRACTS, LISTED, TableFacts, differences, interval_days
from pipelines.lake.contract.facts import table_facts
from pipelines.lake.contract.sentences import sentence
from pipelines.lake.contract.source_gaps import find_gap, find_snapshot_gap
from pipelines.lake.delta_log.derived_files import find_damage, set_aside
from pipelines.lake.delta_log.marks import marked
from pipelines.lake.errors import LakehouseError
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, KNOWN_GAPS, LEDGER, REVERSIBLE, SILVER, TableName
from pipelines.silver.dead_letters.retention import strip_closed
from tests.faults.evidence import Evidence

Act = Callable[[DeltaTable], None]
DATA = (BRONZE, SILVER, DLQ, GOLD_HOURLY, GOLD_DAILY)


def _delete(table: DeltaTable) -> None:
    table.delete()


def _update(table: DeltaTable) -> None:
    table.update(updates={table.schema().fields[0].name: "NULL"})


def _append(table: DeltaTable) -> None:
    write_deltalake(table, table.to_pyarrow_table(), mode="append")


def _overwrite(table: DeltaTable) -> None:
    write_deltalake(table, table.to_pyarrow_table().slice(1), mode="overwrite")


def _merge(table: DeltaTable) -> None:
    name = table.schema().fields[0].name
    merge = table.merge(table.to_pyarrow_table().slice(0, 1), f"t.`{name}` = s.`{name}`", source_alias="s", target_alias="t")
    merge.when_matched_delete().execute()


def _compact(table: DeltaTable) -> None:
    write_deltalake(table, table.to_pyarrow_table().slice(0, 0), mode="append", commit_properties=marked("test"))
    table.update_incremental()
    table.optimize.compact(commit_properties=CommitProperties(custom_metadata={"userMetadata": "nightly, see the wiki"}))


def _vacuum(table: DeltaTable) -> None:
    table.vacuum(dry_run=False)


def _property(table: DeltaTable) -> None:
    table.alter.set_table_properties({"owner": "bi"}, raise_if_not_exists=False)


def _checkpoint(table: DeltaTable) -> None:
    table.create_checkpoint()


CHANGES: dict[str, Act] = {
    "delete": _delete,
    "update": _update,
    "append": _append,
    "overwrite": _overwrite,
    "merge": _merge,
}
LAWFUL: tuple[Act, ...] = (_compact, _vacuum, _property, _checkpoint)


@pytest.fixture
def lake(hand_lake: Any) -> Any:
    """The hand-made lake, its tables with the properties that jobs give them."""
    hand_lake.write()
    for name, contract in CONTRACTS.items():
        if Path(hand_lake.path(name)).exists():
            wanted = {key: value for key, value in contract.fixed.items() if value == "true"}
            if wanted:
                hand_lake.delta(name).alter.set_table_properties(wanted, raise_if_not_exists=False)
    return hand_lake


def _unguarded(lake: Any) -> None:
    """Somebody who means to delete rows of Bronze takes its guard away first."""
    lake.delta(BRONZE).alter.set_table_properties({"delta.appendOnly": "false"})


def _found(lake: Any, kind: str) -> list[Finding]:
    return [one for one in diagnose(read_facts(lake.settings, "my.yaml")) if one.id.startswith(kind)]


def _contract(lake: Any, *words: str) -> int:
    """Exit code of a command of `lakehouse contract`."""
    config = lake.folder / "c.yaml"
    config.write_text(json.dumps({"lake": {"root": lake.settings.lake.root, "state_dir": str(lake.folder)}}))
    with pytest.raises(SystemExit) as ended:
        lakehouse(["contract", *words, "--config", str(config)])
    return int(ended.value.code or 0)


@pytest.mark.case("N4")
@pytest.mark.parametrize("name", DATA, ids=str)
def test_rows_changed_by_hand_are_named(lake: Any, name: TableName, evidence: Evidence) -> None:
    """Each act with its version, and the table's contract by the doctor; an unmarked MERGE was ours in earlier versions."""
    assert read_neighbours(lake.settings) == Neighbours()
    _unguarded(lake)
    said = []
    for act in CHANGES.values():
        lake.write(name)  # the overwrite of the fixture itself is by hand as well
        act(lake.delta(name))
        said.append(lake.delta(name).version())
    found = {one.commit.version: one for one in read_neighbours(lake.settings).commits}
    was_unmarked = {GOLD_HOURLY: {"merge"}, GOLD_DAILY: {"merge"}, DLQ: {"merge", "update"}}.get(name, set())

    for act_name, version in zip(CHANGES, said, strict=True):
        assert (version in found) == (act_name not in was_unmarked), act_name
        if version in found:
            assert (found[version].table, found[version].confidence) == (name, "certain")
    [finding] = _found(lake, "rows-by-hand")
    assert str(name) in finding.title
    assert f"version {max(found)}" in finding.evidence
    assert "delta-rs" in finding.evidence
    assert finding.commands
    evidence.loud(f"rows of {name} changed by {', '.join(sorted(set(CHANGES) - was_unmarked))}: named with version and writer")


@pytest.mark.parametrize("name", [GOLD_HOURLY, DLQ], ids=str)
def test_unmarked_merge_after_a_mark_of_ours_is_named_as_likely(lake: Any, name: TableName) -> None:
    table = lake.delta(name)
    table.update(updates={table.schema().fields[0].name: "NULL"}, predicate="false", commit_properties=marked("gold"))
    write_deltalake(table, table.to_pyarrow_table(), mode="append", commit_properties=marked("gold"))
    assert read_neighbours(lake.settings).commits == ()

    _merge(lake.delta(name))
    assert [(one.commit.operation, one.confidence) for one in read_neighbours(lake.settings).commits] == [("MERGE", "likely")]


def test_finding_counts_rows_and_names_the_writer(lake: Any) -> None:
    lake.delta(SILVER).delete("event_id = 'e2'")
    [finding] = _found(lake, "rows-by-hand")

    assert (finding.severity, finding.confidence, finding.playbook) == ("warning", "certain", "table-contract")
    assert "DELETE by delta-rs" in finding.evidence
    assert "(1 rows deleted)" in finding.evidence
    assert finding.commands == ("lakehouse rebuild silver --config my.yaml", "lakehouse rebuild silver --swap --config my.yaml")


def test_lawful_acts_are_no_finding(lake: Any) -> None:
    before = read_neighbours(lake.settings)
    assert before == Neighbours()
    for name in lake.rows:
        for act in LAWFUL:
            act(lake.delta(name))

    assert read_neighbours(lake.settings) == before


def test_writers_of_ours_that_use_no_spark_are_never_named(lake: Any) -> None:
    Ledger(lake.settings).record(BatchRow("bronze", "g9", 0, {"0": [6, 6]}))
    assert discard(lake.delta(DLQ), LetterFilter(), "as told") == 2
    assert strip_closed(lake.delta(DLQ), datetime.now(UTC) + timedelta(days=1)) == 2

    assert read_neighbours(lake.settings).commits == ()


def test_rows_that_leave_the_ledger_are_named(lake: Any) -> None:
    lake.delta(LEDGER).delete("job = 'gold'")

    [one] = read_neighbours(lake.settings).commits
    assert (one.table, one.commit.operation) == (LEDGER, "DELETE")


PROPERTIES: list[tuple[TableName, str, str, str]] = [
    (GOLD_DAILY, "delta.appendOnly", "true", "wrong"),
    (SILVER, "delta.appendOnly", "TRUE", "wrong"),
    (DLQ, "delta.appendOnly", "true", "wrong"),
    (SILVER, "delta.enableChangeDataFeed", "false", "harmless"),
    (BRONZE, "delta.setTransactionRetentionDuration", "interval 1 day", "wrong"),
    (BRONZE, "delta.deletedFileRetentionDuration", "interval 1 hour", "short"),
    (SILVER, "delta.logRetentionDuration", "interval 2 days", "short"),
    (GOLD_HOURLY, "delta.enableDeletionVectors", "true", "feature"),
]


@pytest.mark.parametrize("changed", PROPERTIES, ids=[f"{row[0]} {row[1]}" for row in PROPERTIES])
def test_property_that_differs_is_named_and_set_back(
    lake: Any, capsys: pytest.CaptureFixture[str], changed: tuple[TableName, str, str, str]
) -> None:
    name, key, value, kind = changed
    lake.delta(name).alter.set_table_properties({key: value}, raise_if_not_exists=False)
    found = _found(lake, "contract-")

    assert f"contract-{kind}" in {one.id for one in found}
    assert all(one.commands == (f"lakehouse contract restore {name} --config my.yaml",) for one in found)
    assert any(str(name) in one.evidence and (key in one.evidence or kind == "feature") for one in found)
    assert _contract(lake, "check") == 1
    assert str(name) in capsys.readouterr().out
    if kind == "feature":
        return  # by Spark, in tests/pipelines/test_neighbours.py
    assert _contract(lake, "restore", str(name)) == 0
    assert _found(lake, "contract-") == []
    assert _found(lake, "rows-by-hand") == []


def test_contract_of_a_lake_or_table_that_is_absent_is_not_called_kept(hand_lake: Any, capsys: Any) -> None:
    assert _contract(hand_lake, "check") == 2
    assert "There is no lake at" in capsys.readouterr().err
    hand_lake.write(BRONZE)
    assert _contract(hand_lake, "check") in {0, 1}
    assert _contract(hand_lake, "restore", str(SILVER)) == 2
    assert f"There is no table {SILVER} at" in capsys.readouterr().err


@pytest.mark.parametrize("name", [BRONZE, SILVER, GOLD_DAILY], ids=str)
def test_check_constraint_is_named_and_taken_away(lake: Any, name: TableName) -> None:
    lake.delta(name).alter.add_constraint({"mine": "true"})
    [finding] = _found(lake, "contract-wrong")

    assert finding.evidence == f"{name} has delta.constraints.mine = true, expected nothing."
    assert finding.commands == (f"lakehouse contract restore {name} --config my.yaml",)
    assert _contract(lake, "restore", str(name)) == 0
    assert read_neighbours(lake.settings) == Neighbours()


@pytest.mark.parametrize("name", [BRONZE, *REVERSIBLE], ids=str)
def test_column_of_another_type_is_named_with_the_version_before(lake: Any, name: TableName) -> None:
    _unguarded(lake)
    sound, path = lake.delta(name).version(), lake.path(name)
    column = next(one.name for one in lake.delta(name).schema().fields if str(one.type) == str(PrimitiveType("long")))
    rows = lake.delta(name).to_pyarrow_table()
    other = rows.set_column(rows.schema.get_field_index(column), column, rows[column].cast(pa.string()))
    for _ in range(2):
        write_deltalake(path, other, mode="overwrite", schema_mode="overwrite")
    [finding] = _found(lake, "contract-column")

    assert finding.evidence == f"Column {column} of {name} has the type string, expected bigint."
    said = sentence(next(one for one in read_neighbours(lake.settings).differences if one.kind == "column"))
    if name == BRONZE:
        assert finding.commands == ()
        assert f"`RESTORE TABLE {name} TO VERSION AS OF {sound}`" in said
    else:
        assert finding.commands == (f"lakehouse rollback {name} --to {sound} --repair --config my.yaml",)
        assert f"`lakehouse rollback {name} --to {sound} --repair`" in said


def test_properties_that_the_contract_does_not_name_are_others_own(lake: Any) -> None:
    for name in lake.rows:
        lake.delta(name).alter.set_table_properties(
            {"owner": "bi", "delta.checkpointInterval": "10", "delta.logRetentionDuration": "interval 90 days"},
            raise_if_not_exists=False,
        )

    assert read_neighbours(lake.settings) == Neighbours()


def test_features_that_delta_lists_by_itself_are_allowed(tmp_path: Path) -> None:
    """Any feature that is switched on turns the numbers of the protocol into a list."""
    write_deltalake(str(tmp_path), pa.table({"x": [1]}), configuration={"delta.enableDeletionVectors": "true"})
    facts = table_facts(DeltaTable(str(tmp_path)))

    assert "deletionVectors" in facts.features - ALLOWED_FEATURES
    assert {one.key for one in differences(GOLD_DAILY, facts)} == {"deletionVectors", "delta.enableDeletionVectors"}


def test_variant_is_a_type_and_no_name(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"variant": pa.array([{"variant": "x"}])}))
    facts = table_facts(DeltaTable(str(tmp_path)))

    assert (facts.columns, facts.has_variants) == ({"variant": "struct<variant:string>"}, False)


@pytest.mark.parametrize("name", list(CONTRACTS))
def test_feature_that_is_listed_differs_only_where_it_is_used(name: TableName) -> None:
    properties = {key: value for key, value in CONTRACTS[name].fixed.items()}
    listed = TableFacts(properties, ALLOWED_FEATURES | LISTED)
    mapped = TableFacts({**properties, "delta.columnMapping.mode": "name"}, listed.features)

    assert list(differences(name, listed)) == []
    assert {one.key for one in differences(name, mapped)} == {"columnMapping", "delta.columnMapping.mode"}
    variants = TableFacts(properties, listed.features, has_variants=True)
    assert {one.key for one in differences(name, variants)} == {"variantType"}


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("interval 1 week", 7.0),
        ("interval 36500 days", 36500.0),
        ("interval 12 hours", 0.5),
        ("interval 1 day 12 hours", 1.5),
        ("forever", None),
        ("", None),
    ],
)
def test_interval_of_a_property(text: str, days: float | None) -> None:
    assert interval_days(text) == days


def _log(lake: Any, name: TableName) -> Path:
    return Path(lake.path(name)) / "_delta_log"


def _checkpointed(lake: Any, name: TableName = SILVER) -> Path:
    """Make a checkpoint in the middle of the table's log, and return its file."""
    lake.delta(name).create_checkpoint()
    version = lake.delta(name).version()
    lake.delta(name).alter.set_table_properties({"owner": "bi"}, raise_if_not_exists=False)
    return _log(lake, name) / f"{version:020d}.checkpoint.parquet"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": _cut,
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "garbage": lambda path: path.write_bytes(b"PAR1" + b"\xff" * 300 + b"PAR1"),
    "hint of another version": lambda path: (path.parent / "_last_checkpoint").write_text('{"version": 77, "size": 1}') and None,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_checkpoint_is_worked_around(
    lake: Any, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    rows = lake.delta(SILVER).to_pyarrow_table().num_rows
    damage(_checkpointed(lake))
    with pytest.raises(Exception, match=r"(?i)checkpoint|parquet|footer"):
        DeltaTable(lake.path(SILVER))

    with pytest.raises(
        LakehouseError, match=f"all commits are there, so nothing is lost; run `lakehouse contract restore {SILVER}`"
    ):
        find_table(lake.settings, SILVER)
    findings = _found(lake, "")
    [found] = [one for one in findings if one.id == "derived-file-damaged"]
    assert "table-unreadable" not in {one.id for one in findings}
    assert found.commands == (f"lakehouse contract restore {SILVER} --config my.yaml",)
    assert _contract(lake, "restore", str(SILVER)) == 0, capsys.readouterr()
    assert lake.delta(SILVER).to_pyarrow_table().num_rows == rows
    assert _found(lake, "derived") == []
    assert find_damage(lake.path(SILVER)) is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', '{"version": "x"}'])
def test_hint_that_every_reader_passes_over_is_left_alone(lake: Any, text: str) -> None:
    """Measured: Spark and deltalake list the log then."""
    checkpoint = _checkpointed(lake)
    (checkpoint.parent / "_last_checkpoint").write_text(text)

    assert find_damage(lake.path(SILVER)) is None
    assert lake.delta(SILVER).version() > 0


def test_older_checkpoint_that_is_sound_stands_in_for_commits_that_were_cleaned(lake: Any) -> None:
    first = _checkpointed(lake)
    second = _checkpointed(lake)
    (_log(lake, SILVER) / f"{0:020d}.json").unlink()
    _cut(second)

    damage = find_damage(lake.path(SILVER))
    assert damage is not None
    assert not damage.is_lost
    set_aside(lake.path(SILVER), damage)
    assert lake.delta(SILVER).to_pyarrow_table().num_rows == len(lake.rows[SILVER])
    assert first.exists()


def test_checkpoint_that_stands_for_cleaned_commits_is_real_damage(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = _checkpointed(lake)
    (_log(lake, SILVER) / f"{0:020d}.json").unlink()
    _cut(checkpoint)

    findings = _found(lake, "")
    assert "derived-file-damaged" not in {one.id for one in findings}
    assert "table-unreadable" in {one.id for one in findings}
    before = sorted(path.name for path in _log(lake, SILVER).iterdir())
    assert _contract(lake, "restore", str(SILVER)) == 1
    assert "were cleaned; put it back from a backup" in capsys.readouterr().err
    assert sorted(path.name for path in _log(lake, SILVER).iterdir()) == before


def test_reader_whose_files_were_compacted_and_deleted_cannot_go_on(lake: Any) -> None:
    begins = lake.delta(BRONZE).version()
    for _ in range(3):
        _append(lake.delta(BRONZE))
    end = lake.delta(BRONZE).version()
    assert find_gap(lake.delta(BRONZE), begins + 1, change_feed=False) is None

    lake.delta(BRONZE).optimize.compact()
    assert find_gap(lake.delta(BRONZE), begins + 1, change_feed=False) is None
    lake.delta(BRONZE).vacuum(0, dry_run=False, enforce_retention_duration=False)
    gap = find_gap(lake.delta(BRONZE), begins + 1, change_feed=False)
    assert gap is not None
    assert (gap.version, "OPTIMIZE and VACUUM" in gap.why) == (begins + 1, True)
    assert find_gap(lake.delta(BRONZE), end + 1, change_feed=False) is None
    assert find_gap(lake.delta(BRONZE), end + 9, change_feed=False) is None
    assert find_snapshot_gap(lake.delta(BRONZE), begins + 1) is not None
    assert find_snapshot_gap(lake.delta(BRONZE), end + 1) is None


def test_change_feed_that_was_off_is_a_gap_for_readers_of_changes(lake: Any) -> None:
    on = lake.delta(SILVER).version()
    for value in ("false", "true"):
        lake.delta(SILVER).alter.set_table_properties({"delta.enableChangeDataFeed": value})
        _append(lake.delta(SILVER))
    off, again = on + 1, on + 3

    for since, expected in ((on, off), (off, off), (off + 1, off + 1), (again, None), (again + 1, None)):
        gap = find_gap(lake.delta(SILVER), since, change_feed=True)
        assert (gap.version if gap else None) == expected, since
    assert find_gap(lake.delta(SILVER), on, change_feed=False) is None
    lake.delta(SILVER).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
    _append(lake.delta(SILVER))
    assert find_gap(lake.delta(SILVER), again + 3, change_feed=True) is not None


def test_no_table_is_no_finding(lake: Any) -> None:
    assert not Path(lake.path(KNOWN_GAPS)).exists()
    assert find_damage(lake.path(KNOWN_GAPS)) is None
