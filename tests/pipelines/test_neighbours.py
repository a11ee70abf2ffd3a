"""Others act on the tables between batches: what they may do stops no layer, and what they may not is named with a way out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from delta.tables import DeltaTable as SparkTable
from deltalake import CommitProperties, DeltaTable

from lakehouse.checkpoints.rebuild import plan_rebuild as plan_checkpoint
from lakehouse.checkpoints.rebuild import write_rebuild as write_checkpoint
from lakehouse.cli import main
from lakehouse.doctor.diagnosis import diagnose
from lakehouse.doctor.reading import read_facts
from lakehouse.doctor.reading_neighbours import read_neighbours
from lakehouse.rebuild import build, compare
from lakehouse.rebuild_plan import plan_rebuild
from lakehouse.rebuild_swap import swap
from pipelines.common.contract_start import cause_in_tables
from pipelines.common.errors import ContractError, DataLossError
from pipelines.common.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER, TableName

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Make = Callable[..., dict[str, Any]]
STREAMED = (BRONZE, SILVER, DLQ, GOLD_HOURLY, GOLD_DAILY, LEDGER)
METADATA = (
    "Nightly compaction, see the wiki.",
    "[1]",
    "17",
    "null",
    '{"job": "silver", "generation": 7, "batch_id": "0"}',
    '{"rollback": 3, "rebuild": [true]}',
    '{"a":' * 3_000,
)


def _events(make_event: Make, make_record: Make, first: int, count: int) -> list[dict[str, Any]]:
    """Events of `count` offsets from `first` on, one of them a copy, one dead letter."""
    rows = [
        make_record(make_event(event_id=f"e{n - n % 5 // 4}", customer_id=f"c{n % 2}"), n) for n in range(first, first + count)
    ]
    return [*rows[:-1], make_record(b"{", first + count - 1)]


def _vacuum(lake: Lake, name: TableName) -> None:
    """Compact, and delete what is not of the newest version."""
    DeltaTable(lake.path(name)).optimize.compact()
    DeltaTable(lake.path(name)).vacuum(0, dry_run=False, enforce_retention_duration=False)


def _is_conserved(lake: Lake) -> None:
    counts = lake.counts()
    fates = sum(counts.get(name, 0) for name in ("inserted", "replaced", "duplicate", "dead_lettered", "tombstone"))
    assert fates == len(lake.rows(BRONZE, "_kafka_offset"))
    assert counts["inserted"] == len(lake.rows(SILVER, "event_id"))
    assert counts["dead_lettered"] == len(lake.rows(DLQ, "_kafka_offset"))


def _finding(lake: Lake, kind: str, about: str) -> Any:
    """The doctor's finding of that id whose title names that job or table; of several the first."""
    return next(one for one in diagnose(read_facts(lake.settings, "c.yaml")) if one.id == kind and about in one.title)


def _config(lake: Lake) -> str:
    path = lake.folder / "c.yaml"
    tree = {"root": lake.settings.lake.root, "state_dir": str(lake.folder), "checkpoints": lake.settings.lake.checkpoints}
    path.write_text(json.dumps({"lake": tree, "schemas_dir": str(lake.settings.schemas_dir)}))
    return str(path)


def _restore(lake: Lake, name: TableName) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["contract", "restore", str(name), "--config", _config(lake)])
    assert ended.value.code == 0


def _new_checkpoint(lake: Lake, job: str) -> str:
    plan = plan_checkpoint(lake.settings, job)
    write_checkpoint(plan)
    return Path(plan.target.path).name


def test_silver_goes_on_after_bronze_was_compacted_and_vacuumed_before_it(
    lake: Lake, make_event: Make, make_record: Make
) -> None:
    """The error and the doctor name the same way, and that way works."""
    lake.append(*_events(make_event, make_record, 0, 5))
    lake.run_silver()
    for first in (5, 10):
        lake.append(*_events(make_event, make_record, first, 5))
    _vacuum(lake, BRONZE)

    with pytest.raises(ContractError, match="`lakehouse checkpoint rebuild silver`"):
        lake.run_silver()
    found = _finding(lake, "checkpoint-source-gap", "silver")
    assert found.playbook == "table-contract"
    assert any("checkpoint rebuild silver" in command and "dry-run" not in command for command in found.commands)
    lake.run_silver(_new_checkpoint(lake, "silver"))
    _is_conserved(lake)
    lake.append(*_events(make_event, make_record, 15, 5))
    lake.run_silver("g2")
    lake.run_gold()
    _is_conserved(lake)
    assert sum(row["event_count"] for row in lake.rows(GOLD_DAILY)) == len(lake.rows(SILVER, "event_id"))


def test_gold_is_recomputed_where_silvers_change_feed_was_off(lake: Lake, make_event: Make, make_record: Make) -> None:
    lake.append(*_events(make_event, make_record, 0, 5))
    lake.run_silver()
    lake.run_gold()
    DeltaTable(lake.path(SILVER)).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
    assert _finding(lake, "contract-harmless", str(SILVER)).severity == "warning"
    lake.append(*_events(make_event, make_record, 5, 5))
    lake.run_silver()  # sets it back before it writes

    assert DeltaTable(lake.path(SILVER)).metadata().configuration["delta.enableChangeDataFeed"] == "true"
    with pytest.raises(ContractError, match="`lakehouse rebuild gold --swap`"):
        lake.run_gold()
    found = _finding(lake, "checkpoint-source-gap", "gold")
    assert "lakehouse rebuild gold --swap --config c.yaml" in found.commands
    with pytest.raises(DataLossError, match="`lakehouse rebuild gold --swap`"):
        plan_checkpoint(lake.settings, "gold")

    plan = plan_rebuild(lake.settings, "gold", None, swap=True)
    build(lake.spark, lake.settings, plan, lambda _: None, Event())
    differing = compare(lake.spark, lake.settings, plan, lambda _: None)
    swap(lake.spark, lake.settings, plan, differing, run_id="r", now=datetime.now(UTC))
    lake.run_gold(_new_checkpoint(lake, "gold"))
    lake.append(*_events(make_event, make_record, 10, 5))
    lake.run_silver()
    lake.run_gold("g2")
    assert sum(row["event_count"] for row in lake.rows(GOLD_DAILY)) == len(lake.rows(SILVER, "event_id"))
    # All that ran here wrote marked commits; Bronze is written by the test.
    assert {one.table for one in read_neighbours(lake.settings).commits} <= {BRONZE}


def test_table_that_was_made_append_only_stops_gold_by_name(lake: Lake, make_event: Make, make_record: Make) -> None:
    lake.append(*_events(make_event, make_record, 0, 5))
    lake.run_silver()
    lake.run_gold()
    DeltaTable(lake.path(GOLD_DAILY)).alter.set_table_properties({"delta.appendOnly": "true"})
    lake.append(*_events(make_event, make_record, 5, 5))
    lake.run_silver()

    sentence = f"{GOLD_DAILY} has delta.appendOnly = true, expected false; run `lakehouse contract restore {GOLD_DAILY}`"
    with pytest.raises(ContractError, match=r"delta\.appendOnly") as stopped:
        lake.run_gold()
    assert str(stopped.value).startswith(sentence)
    # What a stream that was running meets is explained by the same sentence.
    cause = cause_in_tables(lake.spark, lake.settings, "gold", str(lake.folder / "checkpoints/gold/g1"))
    assert str(cause).startswith(sentence)
    assert _finding(lake, "contract-wrong", str(GOLD_DAILY)).commands == (
        f"lakehouse contract restore {GOLD_DAILY} --config c.yaml",
    )
    _restore(lake, GOLD_DAILY)
    lake.run_gold()
    assert sum(row["event_count"] for row in lake.rows(GOLD_DAILY)) == len(lake.rows(SILVER, "event_id"))


def test_deletion_vectors_are_refused_and_taken_away(lake: Lake, make_event: Make, make_record: Make) -> None:
    lake.append(*_events(make_event, make_record, 0, 10))
    lake.run_silver()
    lake.run_gold()
    before = lake.gold()
    path = lake.path(GOLD_HOURLY)
    lake.spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    SparkTable.forPath(lake.spark, path).delete("customer_id = 'c1'")
    lake.append(*_events(make_event, make_record, 10, 5))
    lake.run_silver()

    with pytest.raises(ContractError, match="deletionVectors"):
        lake.run_gold()
    found = _finding(lake, "contract-feature", str(GOLD_HOURLY))
    assert found.commands == (f"lakehouse contract restore {GOLD_HOURLY} --config c.yaml",)
    assert "DELETE" in _finding(lake, "rows-by-hand", str(GOLD_HOURLY)).evidence
    _restore(lake, GOLD_HOURLY)
    lake.run_gold()
    lake.run_gold("g2")  # all hours anew: what was deleted by hand is back
    assert sum(row["event_count"] for row in lake.rows(GOLD_HOURLY)) == len(lake.rows(SILVER, "event_id"))
    assert len(lake.gold()[0]) == len(before[0])


def _commit(lake: Lake, name: TableName, chance: random.Random) -> None:
    DeltaTable(lake.path(name)).alter.set_table_properties(
        {"owner": str(chance.random())},
        raise_if_not_exists=False,
        commit_properties=CommitProperties(custom_metadata={"userMetadata": chance.choice(METADATA)}),
    )


def _compact(lake: Lake, name: TableName, chance: random.Random) -> None:
    properties = CommitProperties(custom_metadata={"userMetadata": chance.choice(METADATA)})
    DeltaTable(lake.path(name)).optimize.compact(commit_properties=properties)


def _vacuum_lawfully(lake: Lake, name: TableName, _chance: random.Random) -> None:
    DeltaTable(lake.path(name)).vacuum(dry_run=False)


def _break_checkpoint(lake: Lake, name: TableName, chance: random.Random) -> None:
    DeltaTable(lake.path(name)).create_checkpoint()
    log = Path(lake.path(name)) / "_delta_log"
    newest = max(log.glob("*.checkpoint.parquet"))
    if chance.random() < 0.5:
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    else:
        newest.unlink()


def _break_checksum(lake: Lake, name: TableName, chance: random.Random) -> None:
    """A wrong one, without Hadoop's own beside it: as on an object store."""
    log = Path(lake.path(name)) / "_delta_log"
    for path in log.glob("[!.]*.crc"):
        tree = json.loads(path.read_text())
        for one in tree.get("setTransactions") or []:
            one["version"] += chance.choice((-3, 1, 50))
        path.write_text(json.dumps(tree))
        (log / f".{path.name}.crc").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("seed", "steps"), [(7, 2), pytest.param(8, 6, marks=pytest.mark.faults), pytest.param(9, 6, marks=pytest.mark.faults)]
)
def test_lawful_acts_between_batches_change_nothing(
    lake: Lake, make_event: Make, make_record: Make, seed: int, steps: int
) -> None:
    """A random sequence of what neighbours may do, between batches of each layer, and the same batches without it."""
    chance = random.Random(seed)
    acts = (_commit, _compact, _vacuum_lawfully, _break_checkpoint, _break_checksum)
    quiet = type(lake)(lake.spark, lake.folder / "quiet")
    for step in range(steps):
        rows = _events(make_event, make_record, 5 * step, 5)
        for one in (lake, quiet):
            one.append(*rows)
            one.run_silver()
            one.run_gold()
        for name in STREAMED:
            # What breaks a file comes last: a neighbour that reads the log would meet it before the job does.
            for act in sorted(chance.sample(acts, k=2), key=acts.index):
                if name != BRONZE or act is not _break_checksum:
                    act(lake, name, chance)

    lake.append(*(extra := _events(make_event, make_record, 5 * steps, 5)))
    quiet.append(*extra)
    for one in (lake, quiet):
        one.run_silver()
        one.run_gold()
    _is_conserved(lake)
    without = ("_processed_at", "_dead_lettered_at", "_last_attempt_at")
    assert lake.rows(SILVER, without=without) == quiet.rows(SILVER, without=without)
    assert lake.rows(DLQ, without=without) == quiet.rows(DLQ, without=without)
    assert lake.counts() == quiet.counts()
    assert lake.gold() == quiet.gold()
