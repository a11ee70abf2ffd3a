"""A job that may not read its sources, or not write its tables, ends before it makes anything."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import ADJUSTMENTS, ALL_TABLES, BRONZE, GOLD_DAILY, LEDGER, SILVER
from tests.without_rights import command

NOTHING, READ_ONLY = 0o000, 0o500


def _run(module: str, folder: Path) -> str:
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command(module, str(folder)), cwd=PROJECT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _lake(folder: Path) -> Settings:
    lake = {"root": f"{folder}/lake", "checkpoints": f"{folder}/checkpoints", "state_dir": str(folder)}
    (folder / "conf.json").write_text(json.dumps({"lake": lake}))
    settings = load_settings(folder / "conf.json", environ={})
    for table in ALL_TABLES:
        write_deltalake(table.path(settings), pa.table({"n": [1]}))
    (folder / "lake" / "_leases").mkdir()
    for layer in ("bronze", "silver", "gold"):
        for name in (f"{layer}.json", f"{layer}.token"):
            (folder / "lake" / "_leases" / name).touch()
        checkpoint = folder / "checkpoints" / layer / "g2"
        checkpoint.mkdir(parents=True)
        for name in ("lakehouse.json", "lakehouse.lock", "lakehouse.token"):
            (checkpoint / name).touch()
    return settings


def test_job_that_is_barred_says_by_what_and_makes_nothing(tmp_path: Path) -> None:
    settings = _lake(tmp_path)
    lake, checkpoints = tmp_path / "lake", tmp_path / "checkpoints"
    silver, bronze = Path(SILVER.path(settings)), Path(BRONZE.path(settings))
    barred: list[tuple[str, Path, int, str]] = [
        ("bronze", bronze, READ_ONLY, "writable"),
        ("bronze", lake, NOTHING, "readable"),
        ("bronze", lake / "ops", NOTHING, "readable"),
        ("silver", bronze, NOTHING, "readable"),
        ("silver", bronze / "_delta_log", NOTHING, "readable"),
        ("silver", silver, READ_ONLY, "writable"),
        ("silver", silver / "_delta_log", READ_ONLY, "writable"),
        ("silver", lake / "_leases", NOTHING, "readable"),
        ("silver", lake / "_leases" / "silver.json", 0o400, "writable"),
        ("silver", lake / "_leases" / "silver.token", 0o400, "writable"),
        ("silver", checkpoints, NOTHING, "readable"),
        ("silver", checkpoints / "silver", NOTHING, "readable"),
        ("silver", checkpoints / "silver" / "g2", READ_ONLY, "writable"),
        ("silver", checkpoints / "silver" / "g2" / "lakehouse.json", NOTHING, "readable"),
        ("silver", checkpoints / "silver" / "g2" / "lakehouse.lock", 0o400, "writable"),
        ("silver", checkpoints / "silver" / "g2" / "lakehouse.token", 0o400, "writable"),
        ("gold", silver.parent, NOTHING, "readable"),
        ("gold", Path(GOLD_DAILY.path(settings)), READ_ONLY, "writable"),
        ("reconcile", Path(GOLD_DAILY.path(settings)), READ_ONLY, "writable"),
        ("reconcile", lake / "gold", READ_ONLY, "writable"),
        ("up", Path(LEDGER.path(settings)), READ_ONLY, "writable"),
    ]
    # What a job has to make needs a folder in which it may.
    Path(ADJUSTMENTS.path(settings)).rename(tmp_path / "adjustments")
    (tmp_path / "barred.json").write_text(json.dumps([(job, str(path), mode) for job, path, mode, _ in barred]))
    before = sorted(map(str, tmp_path.rglob("*")))
    found = json.loads(_run("tests.pipelines.lake.storage.starting_without_rights", tmp_path))
    wrong = [
        f"{job} on {path}: {code}, {said}"
        for (job, path, _, done), (code, said) in zip(barred, found, strict=True)
        if code != 1 or said.count("\n") != 1 or f": {path} is not {done}: permission denied; run this as the user" not in said
    ]
    assert not wrong, "\n".join(wrong)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.mark.faults  # Spark's own session, without rights
def test_spark_that_sees_no_table_makes_none_on_top(tmp_path: Path) -> None:
    answers, log = json.loads(_run("tests.pipelines.lake.storage.spark_without_rights", tmp_path)).values()
    sound, table = answers.pop(""), tmp_path / "lake" / "silver" / "t"
    assert sound["is_delta_table"] == "True"
    assert sound["names"] == "['lakehouse.json']"
    assert sound["checkpoint_path"].endswith("/silver/g3")
    for path, said in answers.items():
        of_table = table.is_relative_to(path) or Path(path).is_relative_to(table)
        for question in ("is_delta_table", "ensure_table") if of_table else ("read", "names"):
            assert said[question].startswith(f"UnreadableError: {path} is not readable: permission denied"), (
                path,
                question,
                said,
            )
        if not of_table and Path(path).name != "g3":
            assert said["checkpoint_path"].startswith("UnreadableError"), (path, said)
    assert [name for name in log if name.endswith(".json")] == [f"{0:020}.json"]
