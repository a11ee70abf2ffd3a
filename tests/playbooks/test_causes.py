"""Causes in a lake and on its machine, provoked for real: the page that the error names, the doctor's, and its first way out.

The table at the end of playbooks/failure-matrix.md has a line for each; those of the world around are in test_causes_world.py.
The streams run within the test's own session; commands that need no JVM run as they are written in the page. Whole pages are
followed by test_followed*.py.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from pipelines.lake.errors import LakehouseError
from pipelines.lake.tables import BRONZE, GOLD_HOURLY, SILVER
from pipelines.runtime import session
from pipelines.silver import writer
from tests.playbooks.causes import TABLE, Case, Copy, case_with_rows, children, named
from tests.playbooks.pages import FOLDER


@pytest.fixture
def case(spark: SparkSession, tmp_path: Path, made_once: Copy) -> Case:
    """A lake whose Silver and Gold have read two events; a third waits in Bronze."""
    return case_with_rows(spark, tmp_path, made_once)


def test_offsets_of_a_checkpoint_are_cut(case: Case) -> None:
    path = case.checkpoint("silver") / "offsets" / "0"
    path.write_bytes(path.read_bytes()[:20])

    named(case.run(), "offsets_cut", case.pages_of_doctor())
    case.follow("checkpoint-lost", JOBS="silver")
    assert case.run(generation="g2") is None
    assert case.is_well("a", "b", "c")


def test_marker_of_a_checkpoint_is_cut(case: Case) -> None:
    path = case.checkpoint("silver") / "lakehouse.json"
    path.write_bytes(path.read_bytes()[:10])

    named(case.run(), "marker_cut", case.pages_of_doctor())
    case.follow("checkpoint-lost", JOBS="silver")
    assert case.run(generation="g2") is None
    assert case.is_well("a", "b", "c")


def test_whole_checkpoint_is_gone(case: Case) -> None:
    shutil.rmtree(case.checkpoint("silver"))
    doctor = case.pages_of_doctor()

    named(case.run(), "checkpoint_gone", doctor)
    assert case.is_well("a", "b", "c")
    shutil.rmtree(case.checkpoint("silver"))
    case.add("d")
    case.follow("checkpoint-lost", JOBS="silver")
    assert case.run() is None
    assert case.is_well("a", "b", "c", "d")
    assert case.lake.counts()["inserted"] == 4


def test_file_of_bronze_is_gone(case: Case, tmp_path: Path) -> None:
    file, backup = case.newest(BRONZE), tmp_path / "backup"
    backup.mkdir()
    shutil.move(file, backup)

    named(case.run(), "bronze_file_gone", case.pages_of_doctor())
    case.follow("bronze-corruption", BRONZE=case.lake.path(BRONZE), BACKUP=str(backup), FILE=file.name)
    assert case.run() is None
    assert case.is_well("a", "b", "c")


def test_commit_of_bronze_is_cut(case: Case, tmp_path: Path) -> None:
    commit = Path(case.lake.path(BRONZE)) / "_delta_log" / f"{1:020d}.json"
    backup = tmp_path / "backup" / "_delta_log"
    backup.mkdir(parents=True)
    shutil.copy(commit, backup)
    commit.write_bytes(commit.read_bytes()[:40])
    case.forget()

    named(case.run(), "bronze_commit_cut", case.pages_of_doctor())
    file = f"_delta_log/{commit.name}"
    case.follow("bronze-corruption", BRONZE=case.lake.path(BRONZE), BACKUP=str(backup.parent), FILE=file)
    case.forget()
    assert case.run() is None
    assert case.is_well("a", "b", "c")


def test_vacuum_under_a_reader_that_is_behind(case: Case) -> None:
    case.add("d")
    table = DeltaTable(case.lake.path(BRONZE))
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    case.forget()

    named(case.run(), "vacuum_behind", case.pages_of_doctor())
    # The page's way for a table whose newest version has all its files.
    assert case.run(generation="g2") is None
    assert case.is_well("a", "b", "c", "d")


def test_change_feed_of_silver_was_off_under_gold(case: Case) -> None:
    DeltaTable(case.lake.path(SILVER)).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
    case.forget()
    assert case.run() is None  # it sets it back, and then writes what Gold would have read

    named(case.run("gold"), "feed_off", case.pages_of_doctor())
    _make_gold_from_rows(case)
    case.add("d")
    assert case.run() is None
    assert case.run("gold", "g2") is None
    assert case.events_in_gold() == 4


def test_vacuum_of_silver_under_a_gold_that_is_behind(case: Case) -> None:
    assert case.run() is None
    table = DeltaTable(case.lake.path(SILVER))
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    case.forget()

    named(case.run("gold"), "feed_vacuumed", case.pages_of_doctor())
    _make_gold_from_rows(case)


def _make_gold_from_rows(case: Case) -> None:
    """The page's way: Gold from Silver's rows, then a checkpoint behind them."""
    case.rebuild_gold()
    case.follow("table-contract", block=1)
    assert case.run("gold", "g2") is None
    assert case.events_in_gold() == 3


def test_append_only_is_set_on_gold(case: Case) -> None:
    assert case.run() is None
    DeltaTable(case.lake.path(GOLD_HOURLY)).alter.set_table_properties({"delta.appendOnly": "true"})
    case.forget()

    named(case.run("gold"), "append_only", case.pages_of_doctor())
    case.follow("table-contract", TABLE=str(GOLD_HOURLY))
    case.forget()
    assert case.run("gold") is None
    assert case.events_in_gold() == 3


def test_feature_that_nobody_here_understands(case: Case) -> None:
    log = Path(case.lake.path(BRONZE)) / "_delta_log" / f"{2:020d}.json"
    features = '"readerFeatures":["notKnown"],"writerFeatures":["notKnown"]'
    log.write_text(f'{{"protocol":{{"minReaderVersion":3,"minWriterVersion":7,{features}}}}}\n')
    case.forget()

    named(case.run(), "unknown_feature", case.pages_of_doctor())
    log.unlink()  # the version before, as the page says: RESTORE needs a reader that knows the feature
    case.forget()
    assert case.run() is None


def test_jars_are_missing(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SPARK_JARS", tmp_path / "none")
    with pytest.raises(LakehouseError) as caught:
        session.build_session(case.lake.settings, "test")

    named(caught.value, "jars_missing")
    monkeypatch.undo()
    assert case.run() is None


def test_too_few_file_handles(case: Case) -> None:
    case.forget()
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in children(os.getpid(), "java")}
    try:
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, hard))
        error = case.run()
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)

    named(error, "few_handles", case.pages_of_doctor())
    case.follow("environment")
    assert case.run() is None
    assert case.is_well("a", "b", "c")


def test_files_of_another_user(case: Case) -> None:
    """The command runs as nobody; the page is followed by the owner of the files."""
    root = Path(case.lake.settings.lake.root)
    for folder in (root.parent, *root.parent.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o711)
    log = Path(case.lake.path(SILVER)) / "_delta_log"
    log.chmod(0o700)
    script = (
        "import os, deltalake\n"
        "from pipelines.runtime.failures import named_error\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        f"try:\n    deltalake.DeltaTable({case.lake.path(SILVER)!r})\n"
        "except Exception as error:\n    print(named_error(error).playbook, named_error(error))\n"
    )
    if os.getuid() != 0:
        log.chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=FOLDER.parent, timeout=60, check=False
    )

    assert done.stdout.split()[:1] == [TABLE["permission"][0]], done.stdout + done.stderr
    case.follow("permission", LAKE=str(root), USER_OF_JOBS=str(os.getuid()))
    assert case.run() is None


def test_defect_of_the_project(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any, **_options: Any) -> Any:
        known: dict[str, str] = {}
        return known["cust-4711"]

    with monkeypatch.context() as patch:
        patch.setattr(writer, "build_silver_rows", broken)
        errors = [case.run() for _ in range(2)]

    named(errors[-1], "unknown", case.pages_of_doctor())
    assert "failed 2 times in a row in batch 1 with KeyError (unknown: nobody has foreseen this error)" in str(errors[-1])
    assert "cust-4711" not in str(errors[-1])
    (trace,) = (case.lake.folder / "errors").iterdir()
    assert str(trace) in str(errors[-1])
    text = trace.read_text()
    assert "builtins.KeyError" in text
    assert "test_causes.py" in text
    assert "cust-4711" not in text
    # Its first way: start again. What was an accident of the moment passes.
    assert case.run() is None
    assert case.is_well("a", "b", "c")


def test_table_has_a_line_for_each_cause_here_and_no_other() -> None:
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("test_causes*.py"))]
    used = {cause for source in sources for cause in re.findall(r'named\(.*?, "(\w+)"|TABLE\["(\w+)"\]', source)}
    assert len(sources) == 2
    assert {one or other for one, other in used} == set(TABLE)
