"""Causes of an error, provoked for real: the page that the error names, the doctor's, and its first way out, which works.

The table at the end of playbooks/failure-matrix.md has a line for each. The streams run within the test's own session; commands
that need no JVM run as they are written in the page. Whole pages are followed by test_followed*.py.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.doctor.diagnosis import diagnose
from lakehouse.doctor.reading import read_facts
from pipelines.common import jobs, kafka, session
from pipelines.common.errors import LakehouseError
from pipelines.common.failures import BatchFailures
from pipelines.common.settings import load_settings
from pipelines.common.tables import BRONZE, GOLD_HOURLY, SILVER, TableName
from pipelines.common.traces import keep_traces_in
from pipelines.gold import gold_aggregation
from pipelines.silver import silver_processing, sink
from tests.pipelines.conftest import Lake, event, record
from tests.playbooks.pages import FOLDER, read_page
from tests.playbooks.runner import run_shell

Copy = Callable[[Path, Callable[[Path], None]], None]
_RUN = {"silver": silver_processing.run, "gold": gold_aggregation.run}
_ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| \[([\w-]+)\]\(\2\.md\) \| ([\w-]+|-) \|", re.MULTILINE)
TABLE = {found[1]: (found[2], found[3]) for found in _ROW.finditer((FOLDER / "failure-matrix.md").read_text(encoding="utf-8"))}
"""For each cause the page that the error names, and that of the doctor's finding, `-` where it sees nothing of it."""


@dataclass
class Case:
    """A lake that a cause befalls."""

    lake: Lake
    config: Path

    def run(self, job: str = "silver", checkpoint: str = "g1") -> LakehouseError | None:
        """Run a stream to its end as a job does; give the error that ends it."""
        path = f"{self.lake.settings.lake.checkpoints}/{job}/{checkpoint}"
        try:
            query = _RUN[job](self.lake.spark, self.lake.settings, checkpoint_path=path, trigger=jobs.AVAILABLE_NOW)
            jobs.await_query(query, threading.Event())
        except Exception as error:
            return BatchFailures(self.lake.spark, job, path).note(error).error()
        return None

    def pages_of_doctor(self) -> set[str]:
        """Pages of the doctor's findings, but for Kafka's, which is not there."""
        found = diagnose(read_facts(self.lake.settings, str(self.config)))
        return {one.playbook for one in found if not one.id.startswith("kafka-")}

    def follow(self, page: str, block: int = 0, **variables: str) -> None:
        """Run a block of the page's mitigation as it is written, but for what starts Spark."""
        found = [one for one in read_page(page).blocks if one.section == "Mitigation"][block]
        lines = [line for line in found.code.splitlines() if not line.startswith("lakehouse up")]
        setup = [f"export {name}='{value}'" for name, value in {"CONFIG": str(self.config), **variables}.items()]
        done = run_shell("\n".join([*setup, *lines]), {})
        assert done.returncode == 0, done.stdout

    def is_well(self, *ids: str) -> bool:
        """Whether Silver has exactly these events."""
        return {row["event_id"] for row in self.lake.rows(SILVER, "event_id")} == set(ids)

    def newest(self, table: TableName) -> Path:
        """The newest data file of a table."""
        paths = [Path(path) for path in DeltaTable(self.lake.path(table)).file_uris()]
        return max(paths, key=lambda path: path.stat().st_mtime)


def _add(lake: Lake, *names: str) -> None:
    known = DeltaTable(lake.path(BRONZE)).version() + 1 if Path(lake.path(BRONZE)).exists() else 0
    lake.append(*(record(event(event_id=name), known * 10 + n) for n, name in enumerate(names)))


def _forget(spark: SparkSession) -> None:
    """Let the session read the tables' logs anew, as another process does."""
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]


@pytest.fixture
def case(spark: SparkSession, tmp_path: Path, made_once: Copy) -> Case:
    """A lake whose Silver and Gold have read two events; a third waits in Bronze."""

    def make(folder: Path) -> None:
        made = Lake(spark, folder)
        _add(made, "a", "b")
        made.run_silver()
        made.run_gold()
        _add(made, "c")

    made_once(tmp_path, make)
    lake, config = Lake(spark, tmp_path), tmp_path / "settings.yaml"
    keep_traces_in(str(tmp_path))
    config.write_text(yaml.safe_dump(lake.settings.model_dump(mode="json", include={"lake", "schemas_dir"})))
    return Case(lake, config)


def _named(error: LakehouseError | None, cause: str, doctor: Iterable[str] = ()) -> None:
    """The error names the table's page, and the doctor the table's, if it has one."""
    page, doctors = TABLE[cause]
    assert error is not None
    assert error.playbook == page, str(error)
    assert doctors in {"-", *doctor}, doctor
    assert str(error).count("\n") == 0


def test_offsets_of_a_checkpoint_are_cut(case: Case) -> None:
    path = Path(case.lake.settings.lake.checkpoints) / "silver" / "g1" / "offsets" / "0"
    path.write_bytes(path.read_bytes()[:20])

    _named(case.run(), "offsets_cut", case.pages_of_doctor())
    case.follow("checkpoint-lost", JOBS="silver")
    assert case.run(checkpoint="g2") is None
    assert case.is_well("a", "b", "c")


def test_marker_of_a_checkpoint_is_cut(case: Case) -> None:
    path = Path(case.lake.settings.lake.checkpoints) / "silver" / "g1" / "lakehouse.json"
    path.write_bytes(path.read_bytes()[:10])

    _named(case.run(), "marker_cut", case.pages_of_doctor())
    case.follow("checkpoint-lost", JOBS="silver")
    assert case.run(checkpoint="g2") is None
    assert case.is_well("a", "b", "c")


def test_file_of_bronze_is_gone(case: Case, tmp_path: Path) -> None:
    file, backup = case.newest(BRONZE), tmp_path / "backup"
    backup.mkdir()
    shutil.move(file, backup)

    _named(case.run(), "bronze_file_gone", case.pages_of_doctor())
    case.follow("bronze-corruption", BRONZE=case.lake.path(BRONZE), BACKUP=str(backup), FILE=file.name)
    assert case.run() is None
    assert case.is_well("a", "b", "c")


def test_commit_of_bronze_is_cut(case: Case, tmp_path: Path) -> None:
    commit = Path(case.lake.path(BRONZE)) / "_delta_log" / f"{1:020d}.json"
    backup = tmp_path / "backup" / "_delta_log"
    backup.mkdir(parents=True)
    shutil.copy(commit, backup)
    commit.write_bytes(commit.read_bytes()[:40])
    _forget(case.lake.spark)

    _named(case.run(), "bronze_commit_cut", case.pages_of_doctor())
    file = f"_delta_log/{commit.name}"
    case.follow("bronze-corruption", BRONZE=case.lake.path(BRONZE), BACKUP=str(backup.parent), FILE=file)
    _forget(case.lake.spark)
    assert case.run() is None
    assert case.is_well("a", "b", "c")


def test_vacuum_under_a_reader_that_is_behind(case: Case) -> None:
    _add(case.lake, "d")
    table = DeltaTable(case.lake.path(BRONZE))
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    _forget(case.lake.spark)

    _named(case.run(), "vacuum_behind", case.pages_of_doctor())
    # The page's way for a table whose newest version has all its files.
    assert case.run(checkpoint="g2") is None
    assert case.is_well("a", "b", "c", "d")


def test_append_only_is_set_on_gold(case: Case) -> None:
    assert case.run() is None
    DeltaTable(case.lake.path(GOLD_HOURLY)).alter.set_table_properties({"delta.appendOnly": "true"})
    _forget(case.lake.spark)

    _named(case.run("gold"), "append_only", case.pages_of_doctor())
    case.follow("table-contract", TABLE=str(GOLD_HOURLY))
    _forget(case.lake.spark)
    assert case.run("gold") is None
    assert sum(row["event_count"] for row in case.lake.rows(GOLD_HOURLY)) == 3


def test_feature_that_nobody_here_understands(case: Case) -> None:
    log = Path(case.lake.path(BRONZE)) / "_delta_log" / f"{2:020d}.json"
    features = '"readerFeatures":["notKnown"],"writerFeatures":["notKnown"]'
    log.write_text(f'{{"protocol":{{"minReaderVersion":3,"minWriterVersion":7,{features}}}}}\n')
    _forget(case.lake.spark)

    _named(case.run(), "unknown_feature", case.pages_of_doctor())
    log.unlink()  # the version before, as the page says: RESTORE needs a reader that knows the feature
    _forget(case.lake.spark)
    assert case.run() is None


def test_kafka_is_down(case: Case) -> None:
    changes = {"kafka.bootstrap_servers": "127.0.0.1:1", "kafka.startup_timeout_seconds": 1.0}
    settings = load_settings(None, environ={}, overrides={"lake.root": case.lake.settings.lake.root, **changes})
    with pytest.raises(LakehouseError) as caught:
        kafka.wait_for_topic(settings)
    found = diagnose(read_facts(settings, str(case.config)))

    _named(caught.value, "kafka_down", {one.playbook for one in found if one.id == "kafka-silent"})


def test_jars_are_missing(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "JARS", tmp_path / "none")
    with pytest.raises(LakehouseError) as caught:
        session.build_session(case.lake.settings, "test")

    _named(caught.value, "jars_missing")
    monkeypatch.undo()
    assert case.run() is None


def test_too_few_file_handles(case: Case) -> None:
    java = [int(pid) for pid in _children(os.getpid()) if "java" in Path(f"/proc/{pid}/comm").read_text()]
    _forget(case.lake.spark)
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in java}
    try:
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, hard))
        error = case.run()
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)

    _named(error, "few_handles", case.pages_of_doctor())
    case.follow("environment")
    assert case.run() is None
    assert case.is_well("a", "b", "c")


def _children(pid: int) -> list[str]:
    return subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()


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
        "from pipelines.common.jobs import named_error\n"
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
        patch.setattr(sink, "build_silver_rows", broken)
        errors = [case.run() for _ in range(2)]

    _named(errors[-1], "unknown", case.pages_of_doctor())
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
    source = Path(__file__).read_text(encoding="utf-8")
    used = set(re.findall(r'_named\(.*?, "(\w+)"', source)) | set(re.findall(r'TABLE\["(\w+)"\]', source))
    assert used == set(TABLE)
