"""Others act on the tables between batches: what they may do stops no layer, and what they may not is named with a way out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from delta.tables import DeltaTable as SparkTable
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from lakehouse.commands.cli import main
from lakehouse.operations.checkpoints.rebuild import plan_rebuild as plan_checkpoint
from lakehouse.operations.checkpoints.rebuild import write_rebuild as write_checkpoint
from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.reading import read_facts
from lakehouse.operations.doctor.reading_neighbours import read_neighbours
from lakehouse.operations.rollback.plan import plan_rollback
from lakehouse.operations.rollback.rollback import roll_back
from pipelines.lake.errors import ContractError, DataLossError
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, SILVER, TableName
from pipelines.runtime.guards.cause import cause_in_tables
from tests.neighbours import STREAMED, Act, break_checkpoint, break_checksum, commit, compact, vacuum, vacuum_all
from tests.pipelines.conftest import Lake, event, record
from tests.rebuilds import rebuild_and_swap

Copy = Callable[[Path, Callable[[Path], None]], None]


def _events(first: int, count: int) -> list[dict[str, Any]]:
    """Events of `count` offsets from `first` on, one of them a copy, one dead letter."""
    rows = [record(event(event_id=f"e{n - n % 5 // 4}", customer_id=f"c{n % 2}"), n) for n in range(first, first + count)]
    return [*rows[:-1], record(b"{", first + count - 1)]


@pytest.fixture
def filled(spark: SparkSession, tmp_path: Path, made_once: Copy) -> Lake:
    """A lake whose Silver and Gold have read a batch."""

    def make(folder: Path) -> None:
        made = Lake(spark, folder)
        made.append(*_events(0, 5))
        made.run_silver()
        made.run_gold()

    made_once(tmp_path, make)
    return Lake(spark, tmp_path)


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


def test_silver_goes_on_after_bronze_was_compacted_and_vacuumed_before_it(filled: Lake) -> None:
    """The error and the doctor name the same way, and that way works."""
    for first in (5, 10):
        filled.append(*_events(first, 5))
    vacuum_all(filled.path(BRONZE))

    with pytest.raises(ContractError, match="`lakehouse checkpoint rebuild silver`"):
        filled.run_silver()
    found = _finding(filled, "checkpoint-source-gap", "silver")
    assert found.playbook == "table-contract"
    assert any("checkpoint rebuild silver" in command and "dry-run" not in command for command in found.commands)
    filled.run_silver(_new_checkpoint(filled, "silver"))
    _is_conserved(filled)
    filled.append(*_events(15, 5))
    filled.run_silver("g2")
    filled.run_gold()
    _is_conserved(filled)
    assert sum(row["event_count"] for row in filled.rows(GOLD_DAILY)) == len(filled.rows(SILVER, "event_id"))


def test_gold_is_recomputed_where_silvers_change_feed_was_off(filled: Lake) -> None:
    DeltaTable(filled.path(SILVER)).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
    assert _finding(filled, "contract-harmless", str(SILVER)).severity == "warning"
    filled.append(*_events(5, 5))
    filled.run_silver()  # sets it back before it writes

    assert DeltaTable(filled.path(SILVER)).metadata().configuration["delta.enableChangeDataFeed"] == "true"
    with pytest.raises(ContractError, match="`lakehouse rebuild gold --swap`"):
        filled.run_gold()
    found = _finding(filled, "checkpoint-source-gap", "gold")
    assert "lakehouse rebuild gold --swap --config c.yaml" in found.commands
    with pytest.raises(DataLossError, match="`lakehouse rebuild gold --swap`"):
        plan_checkpoint(filled.settings, "gold")

    rebuild_and_swap(filled.spark, filled.settings, "gold")
    filled.run_gold(_new_checkpoint(filled, "gold"))
    filled.append(*_events(10, 5))
    filled.run_silver()
    filled.run_gold("g2")
    assert sum(row["event_count"] for row in filled.rows(GOLD_DAILY)) == len(filled.rows(SILVER, "event_id"))
    # All that ran here wrote marked commits; Bronze is written by the test.
    assert {one.table for one in read_neighbours(filled.settings).commits} <= {BRONZE}


def test_table_that_was_made_append_only_stops_gold_by_name(filled: Lake) -> None:
    DeltaTable(filled.path(GOLD_DAILY)).alter.set_table_properties({"delta.appendOnly": "true"})
    filled.append(*_events(5, 5))
    filled.run_silver()

    sentence = f"{GOLD_DAILY} has delta.appendOnly = true, expected false; run `lakehouse contract restore {GOLD_DAILY}`"
    with pytest.raises(ContractError, match=r"delta\.appendOnly") as stopped:
        filled.run_gold()
    assert str(stopped.value).startswith(sentence)
    # What a stream that was running meets is explained by the same sentence.
    cause = cause_in_tables(filled.settings, "gold", str(filled.folder / "checkpoints/gold/g1"))
    assert str(cause).startswith(sentence)
    assert _finding(filled, "contract-wrong", str(GOLD_DAILY)).commands == (
        f"lakehouse contract restore {GOLD_DAILY} --config c.yaml",
    )
    _restore(filled, GOLD_DAILY)
    filled.run_gold()
    assert sum(row["event_count"] for row in filled.rows(GOLD_DAILY)) == len(filled.rows(SILVER, "event_id"))


def test_constraint_and_column_of_another_type_are_refused_and_put_right(filled: Lake) -> None:
    DeltaTable(filled.path(SILVER)).alter.add_constraint({"small": "status_code < 300"})
    hourly = DeltaTable(filled.path(GOLD_HOURLY)).to_pyarrow_table()
    place, sound = hourly.schema.get_field_index("event_count"), DeltaTable(filled.path(GOLD_HOURLY)).version()
    counts = hourly["event_count"].cast("string")
    other = hourly.set_column(place, "event_count", counts)
    write_deltalake(filled.path(GOLD_HOURLY), other, mode="overwrite", schema_mode="overwrite")
    filled.append(*_events(5, 5), record(event(event_id="x", status_code=500), 10))

    with pytest.raises(ContractError, match=rf"delta\.constraints\.small = .*`lakehouse contract restore {SILVER}`"):
        filled.run_silver()
    _restore(filled, SILVER)
    filled.run_silver()
    sentence = rf"event_count of {GOLD_HOURLY} has the type string, .*`lakehouse rollback {GOLD_HOURLY} --to {sound} --repair`"
    with pytest.raises(ContractError, match=sentence):
        filled.run_gold()
    plan = plan_rollback(filled.settings, str(GOLD_HOURLY), sound)
    roll_back(filled.spark, filled.settings, plan, reason="a type", repair=True, progress=lambda _: None, stop=Event())
    filled.run_gold()
    assert sum(row["event_count"] for row in filled.rows(GOLD_HOURLY)) == len(filled.rows(SILVER, "event_id"))
    _is_conserved(filled)


def test_deletion_vectors_are_refused_and_taken_away(filled: Lake) -> None:
    before = filled.gold()
    path = filled.path(GOLD_HOURLY)
    filled.spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    SparkTable.forPath(filled.spark, path).delete("customer_id = 'c1'")
    filled.append(*_events(10, 5))
    filled.run_silver()

    with pytest.raises(ContractError, match="deletionVectors"):
        filled.run_gold()
    found = _finding(filled, "contract-feature", str(GOLD_HOURLY))
    assert found.commands == (f"lakehouse contract restore {GOLD_HOURLY} --config c.yaml",)
    assert "DELETE" in _finding(filled, "rows-by-hand", str(GOLD_HOURLY)).evidence
    _restore(filled, GOLD_HOURLY)
    filled.run_gold()
    filled.run_gold("g2")  # all hours anew: what was deleted by hand is back
    assert sum(row["event_count"] for row in filled.rows(GOLD_HOURLY)) == len(filled.rows(SILVER, "event_id"))
    assert len(filled.gold()[0]) == len(before[0])


@pytest.mark.parametrize(
    ("seed", "steps"), [(7, 2), pytest.param(8, 6, marks=pytest.mark.faults), pytest.param(9, 6, marks=pytest.mark.faults)]
)
def test_lawful_acts_between_batches_change_nothing(lake: Lake, seed: int, steps: int) -> None:
    """A random sequence of what neighbours may do, between batches of each layer, and the same batches without it."""
    chance = random.Random(seed)
    acts: tuple[Act, ...] = (commit, compact, vacuum, break_checkpoint, break_checksum)
    quiet = type(lake)(lake.spark, lake.folder / "quiet")
    for step in range(steps):
        rows = _events(5 * step, 5)
        for one in (lake, quiet):
            one.append(*rows)
            one.run_silver()
            one.run_gold()
        for name in STREAMED:
            # What breaks a file comes last: a neighbour that reads the log would meet it before the job does.
            for act in sorted(chance.sample(acts, k=2), key=acts.index):
                if name != BRONZE or act is not break_checksum:
                    act(lake.path(name), chance)

    lake.append(*(extra := _events(5 * steps, 5)))
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
