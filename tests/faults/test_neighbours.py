"""N1 to N3, N5: others act on the tables of a lake with real batches, one of them planned and killed, and records unread."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import NamedTuple

import pytest
from delta.tables import DeltaTable as SparkTable
from deltalake import DeltaTable

from pipelines.lake.tables import BRONZE, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER, TableName
from pipelines.runtime.stream_life import AVAILABLE_NOW
from tests import neighbours
from tests.faults.at_rest import Lake
from tests.faults.conftest import PATIENCE
from tests.faults.evidence import Evidence
from tests.neighbours import STREAMED
from tests.rebuilds import rebuild_and_swap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 * PATIENCE)]

BEFORE: dict[str, tuple[str, ...]] = {"bronze": ("gold",), "silver": ("bronze",), "gold": ("bronze", "silver")}
"""What has to run so that a job has something to read; Bronze has."""


def _path(lake: Lake, name: TableName) -> str:
    return name.path(lake.case.settings)


def _set(lake: Lake, name: TableName, **properties: str) -> None:
    named = {f"delta.{key}": value for key, value in properties.items()}
    DeltaTable(_path(lake, name)).alter.set_table_properties(named, raise_if_not_exists=False)


@pytest.mark.case("N1")
@pytest.mark.parametrize(
    ("script", "failpoint"),
    [
        ("pipelines/bronze/bronze_ingestion.py", "bronze.after_append"),
        ("pipelines/silver/silver_processing.py", "silver.after_append"),
        ("pipelines/gold/gold_aggregation.py", "gold.after_hourly"),
    ],
)
def test_others_words_in_commits_are_not_ours(filled_soon: Lake, evidence: Evidence, script: str, failpoint: str) -> None:
    """A batch is committed and not yet in the ledger; then others commit, so that the newest words are not ours."""
    filled_soon.fill(*BEFORE[failpoint.partition(".")[0]])
    killed = filled_soon.case.run(script, "--trigger", AVAILABLE_NOW, fail_at=failpoint)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for name in STREAMED:
        for text in neighbours.METADATA:
            neighbours.commit_words(_path(filled_soon, name), text)
    evidence.fired(f"SIGKILL at {failpoint}, then {len(neighbours.METADATA)} commits of others with any words on each table")

    filled_soon.fill()
    evidence.holds(filled_soon.case.verdicts())


def _vectors(lake: Lake, name: TableName) -> None:
    path = _path(lake, name)
    lake.spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    SparkTable.forPath(lake.spark, path).update("true", {"event_count": "event_count"})


class Switch(NamedTuple):
    """What somebody switches on a table, and what the job that writes it says of that; None: it goes on."""

    job: str
    name: TableName
    act: Callable[[Lake, TableName], None]
    said: str | None


SWITCHES = (
    Switch("gold", GOLD_DAILY, lambda lake, name: _set(lake, name, appendOnly="true"), "delta.appendOnly = true"),
    Switch("gold", GOLD_HOURLY, _vectors, "deletionVectors"),
    Switch("silver", LEDGER, lambda lake, name: _set(lake, name, appendOnly="true"), None),
    Switch("silver", SILVER, lambda lake, name: _set(lake, name, enableChangeDataFeed="false"), None),
    Switch("bronze", BRONZE, lambda lake, name: _set(lake, name, appendOnly="false"), None),
)


@pytest.mark.case("N2")
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: str(switch.name))
def test_switched_properties_and_features_are_set_back_or_named(filled_soon: Lake, evidence: Evidence, switch: Switch) -> None:
    """Harmless: the job goes on, and sets it back where it has to. Else it is named with a command, and that works."""
    filled_soon.fill(*BEFORE[switch.job])
    switch.act(filled_soon, switch.name)
    version = DeltaTable(_path(filled_soon, switch.name)).version()
    code, line = filled_soon.job(switch.job)
    if switch.said is None:
        assert code == 0, line
        evidence.fired(f"{switch.name}: a property switched: set back, or no matter")
        if switch.name == SILVER:  # Gold cannot read over the version in which its changes were not kept
            _gold_reads_rows_again(filled_soon, evidence)
    else:
        assert code != 0
        assert switch.said in line
        assert f"`lakehouse contract restore {switch.name}`" in line
        assert DeltaTable(_path(filled_soon, switch.name)).version() == version
        evidence.loud(f"{switch.name}: {switch.said}, named with the command that sets it back")
        assert filled_soon.command("contract", "restore", str(switch.name))[0] == 0
    filled_soon.fill()
    assert filled_soon.command("contract", "check")[0] == 0
    evidence.holds(filled_soon.case.verdicts())


@pytest.mark.case("N3")
def test_vacuum_of_all_under_readers_that_are_behind(filled_soon: Lake, evidence: Evidence) -> None:
    filled_soon.fill("bronze")
    neighbours.vacuum_all(_path(filled_soon, BRONZE))
    code, line = filled_soon.job("silver")
    assert code != 0
    assert "`lakehouse checkpoint rebuild silver`" in line
    evidence.loud("OPTIMIZE and VACUUM RETAIN 0 of Bronze before Silver had read: named with a way back")
    assert filled_soon.command("checkpoint", "rebuild", "silver")[0] == 0

    filled_soon.fill("silver")
    neighbours.vacuum_all(_path(filled_soon, SILVER))
    _gold_reads_rows_again(filled_soon, evidence)
    for name in STREAMED:
        neighbours.vacuum_all(_path(filled_soon, name))
    filled_soon.fill()
    evidence.holds(filled_soon.case.verdicts())


def _gold_reads_rows_again(lake: Lake, evidence: Evidence) -> None:
    """Gold names what it cannot read, and the way that it names works."""
    code, line = lake.job("gold")
    assert code != 0
    assert "`lakehouse rebuild gold --swap`" in line
    evidence.loud("Gold cannot read what changed in Silver: named with a way back")
    rebuild_and_swap(lake.spark, lake.case.settings, "gold")
    assert lake.command("checkpoint", "rebuild", "gold")[0] == 0


@pytest.mark.case("N5")
@pytest.mark.parametrize("act", [neighbours.break_checkpoint, neighbours.break_checksum, neighbours.break_last_checkpoint])
def test_broken_derived_files_are_worked_around(
    filled_soon: Lake, evidence: Evidence, fault_seed: int, act: neighbours.Act
) -> None:
    chance = random.Random(fault_seed)
    for name in STREAMED:
        act(_path(filled_soon, name), chance)
    evidence.fired(f"{act.__name__.replace('_', ' ')} of all tables: no job stops, no batch is skipped or written twice")

    filled_soon.fill()
    assert filled_soon.command("status")[0] == 0
    verdicts = filled_soon.case.verdicts()
    evidence.holds(verdicts)
    assert verdicts["I7"] == "holds"
