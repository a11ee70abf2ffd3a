"""No permission on a path: said as such by every command that reads it, and never taken for something absent or damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from batch import archive_bronze
from pipelines.gold.gate.results import Gate, QualityStore
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import (
    ADJUSTMENTS,
    BRONZE,
    BRONZE_ARCHIVE,
    CIRCUIT_BREAKER,
    DLQ,
    GOLD_HOURLY,
    LEDGER,
    QUALITY_RESULTS,
    SILVER,
)
from pipelines.silver.breaker.breaker import Tally
from pipelines.silver.breaker.breaker_store import BreakerStore, Transition
from tests.audits import BLOCKS, audit
from tests.faults.evidence import Evidence
from tests.lakehouse.operations.checkpoints.conftest import CheckpointLake
from tests.without_rights import command

TOPIC = "api-usage-events"
NOTHING, NO_SEARCH, NO_LIST = 0o000, 0o600, 0o300


def _first(folder: Path, pattern: str) -> Path:
    return min(folder.glob(pattern))


def _live(table: Path) -> Path:
    """A data file of the table's newest version: others lie beside it until VACUUM."""
    return min(Path(uri.removeprefix("file://")) for uri in DeltaTable(str(table)).file_uris())


def _paths(folder: Path) -> dict[str, tuple[Path, int]]:
    """Each kind of path that a lake has, and the mode that bars it."""
    lake, checkpoints = folder / "lake", folder / "checkpoints"
    silver, archive = lake / "silver" / SILVER.table, lake / "archive" / "bronze" / BRONZE.table
    unit = _first(archive, "*/run-*")
    return {
        "the lake": (lake, NOTHING),
        "a layer": (lake / "silver", NOTHING),
        "a layer that may be listed": (lake / "silver", NO_SEARCH),
        "the layer of ops": (lake / "ops", NOTHING),
        "a table": (silver, NOTHING),
        "a table that may be listed": (silver, NO_SEARCH),
        "a log": (silver / "_delta_log", NOTHING),
        "a log that may be listed": (silver / "_delta_log", NO_SEARCH),
        "a log that may not be listed": (silver / "_delta_log", NO_LIST),
        "a commit": (silver / "_delta_log" / f"{0:020}.json", NOTHING),
        "a commit of Bronze": (lake / "bronze" / BRONZE.table / "_delta_log" / f"{0:020}.json", NOTHING),
        "a file of Silver": (_live(silver), NOTHING),
        "a file of Bronze": (_live(lake / "bronze" / BRONZE.table), NOTHING),
        "a file of dead letters": (_live(lake / "bronze" / DLQ.table), NOTHING),
        "a file of Gold": (_live(lake / "gold" / GOLD_HOURLY.table), NOTHING),
        "a file of the ledger": (_live(lake / "ops" / LEDGER.table), NOTHING),
        "the ledger": (lake / "ops" / LEDGER.table, NOTHING),
        "the breaker": (lake / "ops" / CIRCUIT_BREAKER.table, NOTHING),
        "a file of the breaker": (_live(lake / "ops" / CIRCUIT_BREAKER.table), NOTHING),
        "the audits": (lake / "ops" / QUALITY_RESULTS.table, NOTHING),
        "a file of the audits": (_live(lake / "ops" / QUALITY_RESULTS.table), NOTHING),
        "the archive's records": (lake / "ops" / BRONZE_ARCHIVE.table, NOTHING),
        "adjustments": (lake / "gold" / ADJUSTMENTS.table, NOTHING),
        "the leases": (lake / "_leases", NOTHING),
        "a lease": (lake / "_leases" / "silver.json", NOTHING),
        "the checkpoints": (checkpoints, NOTHING),
        "the checkpoints, which may be listed": (checkpoints, NO_SEARCH),
        "a job's checkpoints": (checkpoints / "silver", NOTHING),
        "a checkpoint": (checkpoints / "silver" / "g1", NOTHING),
        "a checkpoint that may be listed": (checkpoints / "silver" / "g1", NO_SEARCH),
        "a lock": (checkpoints / "silver" / "g1" / "lakehouse.lock", NOTHING),
        "a marker": (checkpoints / "silver" / "g1" / "lakehouse.json", NOTHING),
        "planned batches": (checkpoints / "silver" / "g1" / "offsets", NOTHING),
        "a planned batch": (checkpoints / "silver" / "g1" / "offsets" / "0", NOTHING),
        "the archive": (lake / "archive", NOTHING),
        "a unit of the archive": (unit, NOTHING),
        "a manifest": (unit / "manifest.json", NOTHING),
        "a file of the archive": (_first(unit, "*.parquet"), NOTHING),
        "the op ledger": (folder / "state" / "op_ledger", NOTHING),
        "a file of the op ledger": (_first(folder / "state" / "op_ledger", "*.parquet"), NOTHING),
        "the state folder": (folder / "state", NOTHING),
        "the broker's state": (folder / "state" / "kafka" / "broker.json", NOTHING),
        "the settings": (folder / "conf.yaml", NOTHING),
        "the event schemas": (folder / "schemas", NOTHING),
        "an event schema": (folder / "schemas" / "1.0.json", NOTHING),
    }


def make_lake(folder: Path, hand_lake: Any) -> None:
    """A lake with something of everything: all layers, dead letters, checkpoints, leases, an open breaker, an archive."""
    hand_lake.folder = folder
    hand_lake.write()
    state = folder / "state"
    (state / "kafka").mkdir(parents=True)
    (state / "kafka" / "broker.json").write_text("{}")  # of a broker that is not known: nobody waits for it
    (folder / "op_ledger").rename(state / "op_ledger")
    shutil.copytree(PROJECT / "conf/schemas/api_usage_events", folder / "schemas")
    kafka = {"bootstrap_servers": "127.0.0.1:1", "topic": TOPIC}
    made = CheckpointLake(folder, kafka, more={"schemas_dir": str(folder / "schemas")})
    for job, ends in (("bronze", [{0: 6, 1: 4}]), ("silver", [(0, 0)]), ("gold", [(0, 0)])):
        (made.checkpoint(job, ends) / "lakehouse.lock").touch()
    for layer in ("bronze", "silver", "gold"):
        with lease_of(made.settings, layer, job="t", run="r").hold():
            pass
    BreakerStore(made.settings).append(
        Transition(datetime.now(UTC) - timedelta(days=1), "closed", "open", Tally(10, 9), "a flood")
    )
    QualityStore(made.settings).record(audit(Gate.REFUSED, BLOCKS))
    hand_lake.delta(BRONZE).alter.set_table_properties({"lakehouse.topicId": made.topic_id}, raise_if_not_exists=False)
    hand_lake.delta(SILVER).alter.set_table_properties({"lakehouse.note": "a second version"}, raise_if_not_exists=False)
    for words in ([], ["--restore", "--from-date", "2026-01-28"]):
        assert archive_bronze.main([*words, "--config", made.config()]) == 0
    made.kafka = {"bootstrap_servers": "embedded", "topic": TOPIC}
    tree = made.tree
    tree["lake"]["state_dir"] = str(state)
    (folder / "conf.yaml").write_text(json.dumps(tree))


WORDS = (
    "does not exist",
    "There is no ",
    "made again",
    "rebuild",
    "is gone",
    "is lost",
    "is missing",
    "damaged",
    "start it with",
)
"""What is said of something absent or damaged, and never of what was not seen."""
NOT_READ = ("not readable", "not open to this user", "cannot be read")
_USAGE = re.compile(r"^(?:Usage:|Try ).*\n", re.MULTILINE)
"""How a command is called, which Typer says first."""


def _problems(kind: str, path: str, name: str, cell: tuple[int, str], sound: tuple[int, str]) -> list[str]:
    """What is wrong with the answer of a command that found a path barred; an answer as before means that it did not need it."""
    (code, said), before = cell, sound[1]
    if (code, said) == tuple(sound):
        return []
    wrong = [] if code not in {0, 3} or code == sound[0] == 3 else [f"exit code {code}"]
    wrong += ["a trace"] if "Traceback" in said else []
    wrong += [] if path in said else ["the path is not named"]
    # Typer says of a settings file that it is "not readable", and no more.
    has_reason = "permission denied" in said or kind == "the settings"
    is_told = has_reason and any(word in said for word in NOT_READ)
    wrong += [] if is_told else ["the reason is missing"]
    told = _USAGE.sub("", said)
    wrong += [f"says `{word}`" for word in WORDS if told.count(word) > before.count(word)]
    if name == "doctor" and said.startswith("["):
        known = {finding["id"] for finding in json.loads(before)} | {"not-examined"}
        wrong += [f"finds {one['id']}" for one in json.loads(said) if one["id"] not in known]
    return [f"{kind}: {name}: {', '.join(wrong)}\n{said.strip()[:900]}"] if wrong else []


SOME = (
    "a layer",
    "the layer of ops",
    "a log that may be listed",
    "a commit of Bronze",
    "a file of dead letters",
    "a file of the ledger",
    "a file of the breaker",
    "a file of the audits",
    "a lease",
    "the checkpoints",
    "a checkpoint that may be listed",
    "a lock",
    "a manifest",
    "the broker's state",
    "an event schema",
)
"""One of each way in which a path can bar; `make test-faults` tries all."""
_SLOW = {"verify": ("a commit of Bronze", "a file of dead letters", "a manifest", "an event schema")}
"""A command that takes a second, and the paths of SOME with which it is tried."""


def _left_out(kind: str) -> list[str]:
    return [name for name, kinds in _SLOW.items() if kind not in kinds]


@pytest.mark.case("N6")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kinds", [SOME, pytest.param((), marks=pytest.mark.faults)], ids=["some", "all"])
def test_path_that_is_barred_is_named_by_each_command_that_needs_it(
    kinds: tuple[str, ...], hand_lake: Any, tmp_path: Path, evidence: Evidence
) -> None:
    """Two dozen commands times each path: never exit code 0, a trace, or a word of what was not seen."""
    make_lake(tmp_path, hand_lake)
    paths = {kind: path for kind, path in _paths(tmp_path).items() if kind in kinds or not kinds}
    barred = {kind: (str(path), mode, _left_out(kind) if kinds else []) for kind, (path, mode) in paths.items()}
    (tmp_path / "paths.json").write_text(json.dumps(barred))
    environ = {**os.environ, "COLUMNS": "300", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        command("tests.lakehouse.commands.unreadable", str(tmp_path)),
        cwd=PROJECT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    sound = found.pop("")
    wrong = [
        problem
        for kind, cells in found.items()
        for name, cell in cells.items()
        for problem in _problems(kind, str(paths[kind][0]), name, cell, sound[name])
    ]
    assert not wrong, f"{len(wrong)} answers are wrong:\n" + "\n\n".join(wrong)
    unnoticed = [kind for kind, cells in found.items() if all(cell == sound[name] for name, cell in cells.items())]
    assert unnoticed == []
    evidence.loud(
        f"{len(found)} paths barred one after the other, {len(sound)} commands each: named, and no advice from what was not seen"
    )
