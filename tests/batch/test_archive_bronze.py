"""Old days of Bronze move to the archive and back: a row leaves only when a copy of it was read back, whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import AddAction

from batch import archive_bronze
from lakehouse.commands.cli import main as lakehouse
from pipelines.archive import records
from pipelines.archive.guard import refuse_archived, refuse_unread
from pipelines.archive.hot import HotTable
from pipelines.archive.restoring import due_units, expire
from pipelines.archive.units import Archive, Survey
from pipelines.bronze.gaps import find_gaps
from pipelines.bronze.schema import TABLE
from pipelines.lake import failpoints
from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.errors import DataLossError, UsageError
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.ledger.known_gaps import Gap
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE
from tests.far_times import FAR_TIMES, add_far_record

Row = dict[str, Any]
TOPIC = "api-usage-events"
D1, D2, D3 = (datetime(2026, 1, day, 23, 59, tzinfo=UTC) for day in (28, 29, 30))
BEFORE = ("--before", "2026-01-30")
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = arrow_schema(TABLE, without=("_kafka_timestamp_ms",))


def record(partition: int, offset: int, at: datetime, value: bytes | None = b"\xff\x00{") -> Row:
    return {
        "_kafka_topic": TOPIC,
        "_kafka_partition": partition,
        "_kafka_offset": offset,
        "_kafka_timestamp": at + timedelta(microseconds=offset),
        "_kafka_timestamp_type": 0,
        "_kafka_key": None if offset % 2 else b"\x00key",
        "_kafka_headers": [None, [], [{"key": "h", "value": b"\xff"}, {"key": "", "value": None}]][offset % 3],
        "_raw_value": value,
        "_raw_size": None if value is None else len(value),
        "_ingested_at": D1,
        "_event_date": at.date(),
    }


@dataclass
class Cold:
    """A lake of which only Bronze, the ledger and the archive matter."""

    folder: Path
    changes: Row = field(default_factory=dict)

    @property
    def tree(self) -> Row:
        return {"lake": {"root": str(self.folder / "lake"), "state_dir": str(self.folder)}, **self.changes}

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, environ={})

    @property
    def config(self) -> str:
        path = self.folder / "settings.yaml"
        path.write_text(yaml.safe_dump(self.tree))
        return str(path)

    @property
    def bronze(self) -> DeltaTable:
        return DeltaTable(BRONZE.path(self.settings))

    def append(self, *rows: Row) -> None:
        path = BRONZE.path(self.settings)
        if not DeltaTable.is_deltatable(path):
            DeltaTable.create(path, SCHEMA, configuration={"delta.appendOnly": "true"})
        write_deltalake(path, pa.Table.from_pylist(list(rows), SCHEMA), mode="append")

    def read_by_silver(self, **offsets: list[int]) -> None:
        """Say that Silver has read these ranges: p0=[first, end]."""
        ranges = {name[1:]: span for name, span in offsets.items()}
        count = len(Ledger(self.settings).batches("silver")) if (self.folder / "lake/ops/batch_ledger").exists() else 0
        Ledger(self.settings).record(BatchRow("silver", "g1", count, ranges))

    def run(self, *flags: str) -> int:
        return archive_bronze.main(["--config", self.config, *flags])

    def hot(self) -> list[Row]:
        return in_order(self.bronze.to_pyarrow_table().to_pylist())

    def archived(self) -> list[Row]:
        """Rows of the files that manifests name, read without the code under test."""
        found: list[Row] = []
        for manifest in sorted(Path(self.settings.lake.root).glob("archive/**/manifest.json")):
            for file in json.loads(manifest.read_text())["files"]:
                found += pq.read_table(manifest.parent / file["name"], partitioning=None).to_pylist()
        return in_order(found)

    def files(self) -> list[tuple[str, int]]:
        paths = [
            path
            for path in self.folder.rglob("*")
            if path.is_file() and "_leases" not in path.parts and path.name != "settings.yaml"
        ]
        return sorted((str(path), path.stat().st_mtime_ns) for path in paths)

    def offsets_recorded(self) -> Counter[tuple[int, int]]:
        return Counter(
            (row["partition"], offset)
            for row in records.rows(self.settings)
            for offset in range(row["first_offset"], row["last_offset"] + 1)
        )


def in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["_kafka_partition"], row["_kafka_offset"]))


def places(rows: Iterable[Row]) -> set[tuple[int, int]]:
    return {(row["_kafka_partition"], row["_kafka_offset"]) for row in rows}


@pytest.fixture
def cold(tmp_path: Path) -> Cold:
    """Three days in three commits whose files hold two days each; partition 0 has a hole at 3, days are out of order at 5."""
    lake = Cold(tmp_path)
    lake.append(*(record(0, offset, D1) for offset in (0, 1, 2, 4)), record(1, 0, D1, None), record(1, 1, D2, b""))
    lake.append(record(0, 5, D2), record(0, 6, D1, b"x" * 1000), record(0, 7, D2), record(1, 2, D3))
    lake.append(*(record(0, offset, D3) for offset in (8, 9)))
    lake.read_by_silver(p0=[0, 10], p1=[0, 3])
    return lake


def test_old_days_move_byte_for_byte_and_younger_ones_stay(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    before, version = cold.hot(), cold.bronze.version()

    assert cold.run(*BEFORE) == 0

    assert "9 rows of 2 days before 2026-01-30 are to move" in capsys.readouterr().out
    assert cold.archived() == [row for row in before if row["_event_date"] < D3.date()]
    assert cold.hot() == [row for row in before if row["_event_date"] >= D3.date()]
    # One commit, and the table is append-only as ever.
    assert cold.bronze.version() == version + 1
    assert cold.bronze.metadata().configuration["delta.appendOnly"] == "true"
    assert cold.offsets_recorded() == Counter(dict.fromkeys(places(cold.archived()), 1))
    names = cold.files()
    assert cold.run(*BEFORE) == 0
    assert cold.files() == names


@pytest.mark.parametrize(("microseconds", "as_spark_writes_it"), FAR_TIMES)
def test_record_of_a_time_after_python_ends_stays_and_keeps_no_day_from_moving(
    cold: Cold, microseconds: int, as_spark_writes_it: str
) -> None:
    far = record(0, 10, D1, b"far")
    add_far_record(BRONZE.path(cold.settings), far, microseconds, as_spark_writes_it, "_event_date")
    cold.read_by_silver(p0=[10, 11], p1=[3, 3])

    assert cold.run(*BEFORE, "--dry-run") == 0
    assert cold.run(*BEFORE) == 0

    assert len(cold.archived()) == 9
    left = pq.read_table(cold.bronze.file_uris(), columns=["_kafka_partition", "_kafka_offset"]).to_pylist()
    assert places(left) == {(1, 2), (0, 8), (0, 9), (0, 10)}


def _append_as_spark_did(cold: Cold, *rows: Row) -> None:
    """One file for all rows, its times as INT96: without a zone in the file, and without statistics in the log."""
    path = Path(BRONZE.path(cold.settings))
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), path / "part-spark.parquet", use_deprecated_int96_timestamps=True)
    days = sorted(row["_event_date"] for row in rows)
    stats = {
        "numRecords": len(rows),
        "minValues": {"_event_date": str(days[0])},
        "maxValues": {"_event_date": str(days[-1])},
        "nullCount": {},
    }
    size = (path / "part-spark.parquet").stat().st_size
    cold.bronze.create_write_transaction(
        [AddAction("part-spark.parquet", size, {}, 0, True, json.dumps(stats))], "append", cold.bronze.schema()
    )


def _parquet_files(cold: Cold) -> list[str]:
    return sorted(path.name for path in Path(BRONZE.path(cold.settings)).glob("*.parquet"))


def test_day_leaves_a_file_that_holds_a_younger_one_too(cold: Cold, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of any time zone: a time without a zone is taken as UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    old, young = [record(0, 8, D1), record(1, 8, D2)], [record(0, 9, D3), record(1, 9, D3)]
    _append_as_spark_did(cold, *old, *young)
    before = cold.hot()
    cold.read_by_silver(p0=[0, 10], p1=[0, 10])

    assert cold.run(*BEFORE) == 0
    assert cold.archived() == [row for row in before if row["_event_date"] < D3.date()]
    assert cold.hot() == [row for row in before if row["_event_date"] == D3.date()]
    adds = pa.table(cold.bronze.get_add_actions(flatten=True)).to_pylist()
    kept = next(add for add in adds if add["num_records"] == len(young) and add["min._kafka_offset"] == 9)
    assert (kept["min._kafka_timestamp"], kept["min._event_date"]) == (D3, D3.date())
    assert kept["max._kafka_timestamp"] == D3 + timedelta(milliseconds=1)

    assert cold.run("--restore", "--from-date", "2026-01-28", "--to-date", "2026-01-29") == 0
    assert cold.hot() == before
    monkeypatch.undo()
    time.tzset()


def test_failed_run_leaves_no_file_behind(cold: Cold, monkeypatch: pytest.MonkeyPatch) -> None:
    _append_as_spark_did(cold, record(0, 8, D1), record(0, 9, D3))
    cold.read_by_silver(p0=[0, 10], p1=[0, 10])
    before, rows = _parquet_files(cold), cold.hot()

    def refuse(*_: Any) -> None:
        msg = "No space left on device"
        raise OSError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(HotTable, "_commit", refuse)
        assert cold.run(*BEFORE) == 1
    assert _parquet_files(cold) == before
    assert cold.hot() == rows

    assert cold.run(*BEFORE) == 0
    before = _parquet_files(cold)
    with monkeypatch.context() as patch:
        patch.setattr(HotTable, "_commit", refuse)
        assert cold.run("--restore", "--from-date", "2026-01-28", "--to-date", "2026-01-29") == 1
    assert _parquet_files(cold) == before

    commit = HotTable._commit

    def too_late(*args: Any) -> None:
        commit(*args)
        refuse()

    with monkeypatch.context() as patch:
        patch.setattr(HotTable, "_commit", too_late)
        assert cold.run("--restore", "--from-date", "2026-01-28", "--to-date", "2026-01-29") == 1
    # The commit came through all the same, so its files are the table's.
    assert cold.hot() == rows


def test_manifest_says_what_the_files_hold(cold: Cold) -> None:
    cold.run(*BEFORE)

    units = Archive.of(cold.settings).units()

    assert [(unit.day, unit.rows, unit.bronze_version) for unit in units] == [(D1.date(), 6, 3), (D2.date(), 3, 3)]
    assert [(p.partition, p.rows, p.first_offset, p.last_offset, p.value_bytes) for p in units[0].parts] == [
        (0, 5, 0, 6, 1012),
        (1, 1, 0, 0, 0),
    ]
    assert units[0].keep_until == date(2033, 1, 28)
    assert dict(units[0].schema)["_raw_value"] == "binary"
    first = pq.ParquetFile(Path(Archive.of(cold.settings).path(units[0].folder)) / units[0].files[0].name)
    assert first.metadata.row_group(0).column(7).compression == "ZSTD"


KILLS = [
    "archive.after_copy:1",
    "archive.after_copy:2",
    "archive.after_manifest:1",
    "archive.after_record:2",
    "archive.after_delete:1",
]


@pytest.mark.parametrize("kill", KILLS)
def test_killed_run_loses_nothing_and_the_next_one_completes_it(cold: Cold, kill: str) -> None:
    assert kill.partition(":")[0] in failpoints.POINTS
    before = cold.hot()
    command = [sys.executable, str(PROJECT / "batch/archive_bronze.py"), "--config", cold.config, *BEFORE]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), failpoints.VARIABLE: kill}
    killed = subprocess.run(command, env=environ, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    assert places(cold.hot()) | places(cold.archived()) == places(before)
    # What is gone from Bronze is in the archive, and said to be there.
    assert places(before) - places(cold.hot()) <= cold.offsets_recorded().keys() & places(cold.archived())

    assert cold.run(*BEFORE) == 0
    assert cold.archived() == [row for row in before if row["_event_date"] < D3.date()]
    assert cold.hot() == [row for row in before if row["_event_date"] >= D3.date()]
    assert set(cold.offsets_recorded().values()) == {1}
    assert Archive.of(cold.settings).survey() == Survey((), ())


def test_files_that_no_run_has_made_stay_and_take_no_unit_with_them(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    cold.run(*BEFORE)
    root = Path(Archive.of(cold.settings).root)
    archived, day = cold.archived(), root / "_event_date=2026-01-28"
    unit = next(day.glob("run-*"))
    foreign = [root / "README", day / "SHA256SUMS", unit / "notes/why", day / "run-old.bak/x.parquet", root / "a/run-1/x"]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("?")
    dead = day / "run-0dead0/part-00000.parquet"
    dead.parent.mkdir()
    dead.write_text("half")

    assert cold.run(*BEFORE) == 0

    said = capsys.readouterr().out
    assert "1 unfinished copies" in said
    assert "5 files in the archive are not of its making and stay (first README)" in said
    assert (dead.exists(), all(path.exists() for path in foreign)) == (False, True)
    assert cold.archived() == archived
    assert len(Archive.of(cold.settings).units()) == 2


@pytest.mark.parametrize(
    "folder", ["", "/", "_event_date=2026-01-28", "_event_date=2026-01-28/", "_event_date=2026-01-28/run-", ".."]
)
def test_nothing_but_the_folder_of_one_run_is_ever_removed(cold: Cold, folder: str) -> None:
    cold.run(*BEFORE)
    names = cold.files()
    with pytest.raises(DataLossError, match="nothing was removed"):
        Archive.of(cold.settings).remove(folder)
    assert cold.files() == names


def _lose_manifest(cold: Cold) -> Path:
    manifest = next(iter(cold.folder.glob("lake/archive/**/_event_date=2026-01-28/run-*/manifest.json")))
    shutil.move(manifest, cold.folder / "backup.json")
    return manifest


def test_recorded_copy_whose_manifest_is_lost_is_never_removed(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    cold.run(*BEFORE)
    archived, manifest = cold.archived(), _lose_manifest(cold)
    names = sorted(cold.folder.glob("lake/archive/**/*"))

    assert cold.run(*BEFORE, "--dry-run") == 0
    assert "1 copies on record have no manifest" in capsys.readouterr().out
    # Other days go on.
    cold.append(record(0, 10, D2))
    cold.read_by_silver(p0=[10, 11])
    assert cold.run(*BEFORE) == 1

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert (len(errors), str(manifest.parent) in errors[0], "playbooks/bronze-archive.md" in errors[0]) == (1, True, True)
    assert set(names) < set(cold.folder.glob("lake/archive/**/*"))
    assert (0, 10) in places(cold.archived())

    shutil.move(cold.folder / "backup.json", manifest)
    assert cold.run(*BEFORE) == 0
    assert in_order([*archived, record(0, 10, D2)]) == cold.archived()
    assert set(cold.offsets_recorded().values()) == {1}


def test_lost_manifest_is_made_anew_from_files_that_hold_what_is_on_record(
    cold: Cold, capsys: pytest.CaptureFixture[str]
) -> None:
    cold.run(*BEFORE)
    archived, units, manifest = cold.archived(), Archive.of(cold.settings).units(), _lose_manifest(cold)
    file = next(manifest.parent.glob("*.parquet"))

    def remake(run: str) -> int:
        with pytest.raises(SystemExit) as ended:
            lakehouse(["archive", "remake-manifest", "--day", "2026-01-28", "--run", run, "--config", cold.config])
        return int(ended.value.code or 0)

    assert remake("nobody") == 2
    content, table = file.read_bytes(), pq.read_table(file, partitioning=None)
    for damage in (table.slice(1), pa.concat_tables([table, table.slice(0, 1)])):
        pq.write_table(damage, file)
        assert remake(units[0].run) == 1
        assert "hold other offsets" in capsys.readouterr().err
    file.write_bytes(content[:-9])
    assert remake(units[0].run) == 1
    file.write_bytes(content)
    assert not manifest.exists()

    assert remake(units[0].run) == 0
    found = Archive.of(cold.settings).units()[0]
    same = replace(units[0], bronze_version=None, created_at=found.created_at)
    assert (found, cold.archived()) == (same, archived)
    assert remake(units[0].run) == 2
    assert cold.run(*BEFORE) == 0
    assert cold.run("--restore", "--from-date", "2026-01-28") == 0


def test_day_that_bronze_has_still_is_copied_anew_where_its_manifest_is_lost(cold: Cold) -> None:
    cold.run(*BEFORE)
    archived = cold.archived()
    cold.run("--restore", "--from-date", "2026-01-28")
    manifest = _lose_manifest(cold)

    assert cold.run(*BEFORE) == 0
    assert cold.archived() == archived
    assert set(cold.offsets_recorded().values()) == {1}
    # Not on record any more, so it is what a run that died has left.
    assert manifest.parent.exists()
    assert cold.run(*BEFORE) == 0
    assert not manifest.parent.exists()
    assert cold.archived() == archived


def test_copied_or_renamed_unit_is_never_read_twice(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    cold.run(*BEFORE)
    unit = next(iter(cold.folder.glob("lake/archive/**/_event_date=2026-01-28/run-*")))
    shutil.copytree(unit, unit.with_name(f"{unit.name}.bak"))
    assert len(Archive.of(cold.settings).units()) == 2
    shutil.copytree(unit, unit.with_name("run-2"))
    version = cold.bronze.version()
    assert cold.run("--restore", "--from-date", "2026-01-28", "--to-date", "2026-01-29") == 1
    assert "run-2/manifest.json is that of" in capsys.readouterr().err
    assert cold.bronze.version() == version


def test_day_that_silver_has_not_read_whole_stays(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(cold.folder / "lake/ops")
    cold.read_by_silver(p0=[0, 3], p1=[0, 3])
    cold.read_by_silver(p0=[4, 7])

    cold.run(*BEFORE)

    assert "2026-01-29 stays: Silver has not read 1 of its 3 rows." in capsys.readouterr().out
    assert {row["_event_date"] for row in cold.hot()} == {D2.date(), D3.date()}


def test_records_that_come_to_an_archived_day_get_a_unit_of_their_own(cold: Cold) -> None:
    before = cold.hot()
    cold.run(*BEFORE)
    late = record(1, 3, D1)
    cold.append(late)
    cold.read_by_silver(p1=[3, 4])

    cold.run(*BEFORE)

    assert [unit.rows for unit in Archive.of(cold.settings).units([D1.date()])] == [6, 1]
    assert cold.archived() + cold.hot() == in_order([*before[:9], late]) or places(cold.archived()) == {
        *places(row for row in before if row["_event_date"] < D3.date()),
        (1, 3),
    }


def test_day_that_changes_meanwhile_stays_until_the_next_run(cold: Cold, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cold.hot()

    def bronze_goes_on(point: str) -> None:
        if point == "archive.after_record" and len(cold.hot()) == len(before):
            cold.append(record(0, 10, D2), record(0, 11, D3))

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reach", bronze_goes_on)
        cold.run(*BEFORE)
    assert {row["_event_date"] for row in cold.hot()} == {D2.date(), D3.date()}
    assert (0, 10) in places(cold.hot())

    cold.read_by_silver(p0=[10, 12])
    cold.run(*BEFORE)
    assert places(cold.hot()) == {(0, 8), (0, 9), (0, 11), (1, 2)}
    assert set(cold.offsets_recorded().values()) == {1}
    assert (0, 10) in places(cold.archived())


def test_restored_rows_are_as_they_were_and_archived_again_without_a_second_copy(
    cold: Cold, capsys: pytest.CaptureFixture[str]
) -> None:
    before = cold.hot()
    cold.run(*BEFORE)
    archived, names = cold.archived(), sorted(Path(cold.folder).glob("lake/archive/**/*.parquet"))

    assert cold.run("--restore", "--from-date", "2026-01-28", "--to-date", "2026-01-29") == 0
    assert cold.hot() == before
    capsys.readouterr()
    version = cold.bronze.version()
    assert cold.run("--restore", "--from-date", "2026-01-28") == 0
    assert "6 rows of 1 days are in the archive, 6 of them in Bronze already.\n0 rows were put back" in capsys.readouterr().out
    assert cold.bronze.version() == version

    cold.run(*BEFORE)
    assert cold.archived() == archived
    assert sorted(Path(cold.folder).glob("lake/archive/**/*.parquet")) == names
    assert {row["_event_date"] for row in cold.hot()} == {D3.date()}


def test_commits_are_no_news_to_readers_of_changes(cold: Cold) -> None:
    version = cold.bronze.version()
    cold.run(*BEFORE)
    cold.run("--restore", "--from-date", "2026-01-28")
    log = Path(BRONZE.path(cold.settings)) / "_delta_log"
    for number in range(version + 1, cold.bronze.version() + 1):
        actions = [json.loads(line) for line in (log / f"{number:020d}.json").read_text().splitlines()]
        changes = [action.get("add") or action.get("remove") for action in actions if "commitInfo" not in action]
        assert changes
        assert all(change["dataChange"] is False for change in changes)


def _damage(cold: Cold) -> Path:
    """Flip a byte of the first day's file."""
    path = next(iter(sorted(cold.folder.glob("lake/archive/**/_event_date=2026-01-28/**/*.parquet"))))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    return path


def test_damaged_copy_keeps_its_rows_in_bronze_and_is_named(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    before = cold.hot()
    cold.run(*BEFORE)
    cold.run("--restore", "--from-date", "2026-01-28", "--to-date", "2026-01-29")
    damaged = _damage(cold)

    assert cold.run(*BEFORE) == 1

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert (len(errors), str(damaged) in errors[0]) == (1, True)
    # The other day is not held up.
    assert {row["_event_date"] for row in cold.hot()} == {D1.date(), D3.date()}
    with pytest.raises(SystemExit) as ended:
        lakehouse(["archive", "verify", "--config", cold.config])
    assert ended.value.code == 3
    assert str(damaged) in capsys.readouterr().out

    shutil.move(damaged.parent, cold.folder / "outside")
    assert cold.run(*BEFORE) == 0
    assert cold.hot() == [row for row in before if row["_event_date"] == D3.date()]
    assert set(cold.offsets_recorded().values()) == {1}
    with pytest.raises(SystemExit) as ended:
        lakehouse(["archive", "verify", "--config", cold.config])
    assert ended.value.code == 0


def test_damaged_archive_is_not_restored(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    cold.run(*BEFORE)
    damaged, version = _damage(cold), cold.bronze.version()

    assert cold.run("--restore", "--from-date", "2026-01-28", "--to-date", "2026-01-29") == 1

    assert str(damaged) in capsys.readouterr().err
    assert cold.bronze.version() == version


def test_copy_that_differs_from_bronze_never_counts(cold: Cold, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cold.hot()

    def disk_lies(point: str) -> None:
        if point == "archive.after_copy":
            path = next(iter(cold.folder.glob("lake/archive/**/*.parquet")))
            table = pq.read_table(path, partitioning=None)
            pq.write_table(table.slice(1), path)

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reach", disk_lies)
        assert cold.run(*BEFORE) == 1
    assert cold.hot() == before or {row["_event_date"] for row in cold.hot()} == {D1.date(), D3.date()}
    assert D1.date() not in {row["_event_date"] for row in cold.archived()}
    assert cold.run(*BEFORE) == 0
    assert cold.archived() == [row for row in before if row["_event_date"] < D3.date()]


@pytest.mark.parametrize("flags", [BEFORE, ("--restore", "--from-date", "2026-01-28"), ("--expire",)])
def test_dry_run_says_counts_and_changes_nothing(cold: Cold, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    if flags != BEFORE:
        cold.run(*BEFORE)
    capsys.readouterr()
    names = cold.files()

    assert cold.run(*flags, "--dry-run") == 0

    said = capsys.readouterr().out
    assert "rows" in said
    assert "(--dry-run)" in said
    assert cold.files() == names


WRONG = [
    (("--before", "2999-01-01"), "retention.bronze_days is 90"),
    (("--before", "yesterday"), "--before is 'yesterday'"),
    (("--restore",), "--from-date is missing"),
    (("--restore", "--from-date", "2026-02-02", "--to-date", "2026-02-01"), "is after --to-date"),
    (("--restore", "--from-date", "2025-01-01"), "has nothing of 2025-01-01"),
    (("--restore", "--expire"), "do not go together"),
    (("--expire", *BEFORE), "do not go together"),
    (("--from-date", "2026-01-01"), "are for --restore"),
]


def test_wrong_flags_are_one_sentence_and_nothing_changes(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    names = cold.files()
    for flags, sentence in WRONG:
        assert cold.run(*flags) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert len(error.strip().splitlines()) == 1
    assert cold.files() == names
    (cold.folder / "nowhere").mkdir()
    assert Cold(cold.folder / "nowhere").run() == 2
    assert "There is no Bronze table" in capsys.readouterr().err


def test_archive_is_given_up_only_after_its_years(cold: Cold) -> None:
    cold.run(*BEFORE)
    units = Archive.of(cold.settings).units()
    last, after = datetime(2033, 1, 28, 12, tzinfo=UTC), datetime(2033, 1, 29, tzinfo=UTC)
    assert due_units(cold.settings, last) == []
    with pytest.raises(UsageError, match="has to be kept until 2033-01-28"):
        expire(cold.settings, units, "r", last, lambda _: None)
    assert len(Archive.of(cold.settings).units()) == 2

    due = due_units(cold.settings, after)
    expire(cold.settings, due, "r", after, lambda _: None)

    assert [unit.day for unit in Archive.of(cold.settings).units()] == [D2.date()]
    assert {(row["day"], row["expired_at"]) for row in records.rows(cold.settings)} == {(D1.date(), after), (D2.date(), None)}
    with pytest.raises(UsageError, match="have expired there too"):
        refuse_archived(cold.settings)


def test_reading_again_what_is_archived_is_refused_by_range_until_it_is_put_back(cold: Cold) -> None:
    refuse_archived(cold.settings)
    cold.run(*BEFORE)
    told = "--restore --from-date 2026-01-28 --to-date 2026-01-29"
    with pytest.raises(
        UsageError, match=rf"9 records of 2026-01-28 to .* \(partition 0 offsets 0 to 2, partition 0 offsets 4 to 7, .*{told}"
    ):
        refuse_archived(cold.settings)
    with pytest.raises(UsageError, match=r"1 records .* \(partition 0 offsets 7 to 7\)"):
        refuse_archived(cold.settings, starting={0: 7}, ending={0: 9})
    refuse_archived(cold.settings, first_day=D3.date())
    refuse_archived(cold.settings, starting={0: 8})
    refuse_unread(cold.settings)
    # A Silver that has lost what it made of partition 1, by a rollback say.
    shutil.rmtree(cold.folder / "lake/ops/batch_ledger")
    cold.read_by_silver(p0=[0, 10])
    with pytest.raises(UsageError, match=r"2 records .* that Silver has not read are in Bronze's archive alone"):
        refuse_unread(cold.settings)

    cold.run("--restore", "--from-date", "2026-01-28", "--to-date", "2026-01-29")

    refuse_archived(cold.settings)
    refuse_unread(cold.settings)


def test_repair_looks_for_true_holes_only(cold: Cold) -> None:
    topic = TopicState(TOPIC, "id", {0: 0, 1: 0}, {0: 10, 1: 3})
    assert find_gaps(cold.settings, topic) == [Gap(0, 3, 3)]
    cold.run(*BEFORE)
    assert find_gaps(cold.settings, topic) == [Gap(0, 3, 3)]


def test_list_says_what_is_there(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*flags: str) -> str:
        with pytest.raises(SystemExit) as ended:
            lakehouse(["archive", "list", *flags, "--config", cold.config])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert listed().startswith("0 rows of 0 days")
    cold.run(*BEFORE)
    capsys.readouterr()
    assert "9 rows of 2 days" in listed()
    found = json.loads(listed("--json"))
    assert [(unit["day"], unit["rows"], len(unit["files"])) for unit in found["units"]] == [
        ("2026-01-28", 6, 1),
        ("2026-01-29", 3, 1),
    ]


def test_lost_unit_is_named(cold: Cold, capsys: pytest.CaptureFixture[str]) -> None:
    cold.run(*BEFORE)
    shutil.rmtree(next(iter(cold.folder.glob("lake/archive/**/_event_date=2026-01-29"))))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        lakehouse(["archive", "verify", "--json", "--config", cold.config])
    assert ended.value.code == 3
    found = json.loads(capsys.readouterr().out)
    assert [(one["day"], "has no manifest" in one["problem"]) for one in found["problems"]] == [("2026-01-29", True)]


def test_archive_lies_where_the_settings_say(cold: Cold, tmp_path: Path) -> None:
    cold.changes["retention"] = {"archive": str(tmp_path / "cheap"), "bronze_days": 30, "archive_days": 400}
    assert cold.run(*BEFORE) == 0
    assert [unit.keep_until for unit in Archive.of(cold.settings).units()] == [date(2027, 3, 4), date(2027, 3, 5)]
    assert len(list((tmp_path / "cheap").glob("bronze/api_usage_events/_event_date=*/run-*/manifest.json"))) == 2
