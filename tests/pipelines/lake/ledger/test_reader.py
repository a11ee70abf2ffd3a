"""The one reader of the ledger: which files it opens, and what it makes of rows of other versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.ledger.reader import LedgerReader
from pipelines.lake.ledger.schema import SCHEMA
from pipelines.lake.ledger_row import COUNTS, Kind, LedgerRow
from pipelines.lake.settings_sources import load_settings

NOW = datetime(2026, 1, 28, 10, 0, 0, 123_456, tzinfo=UTC)
FIRST_COLUMNS = [name for name in SCHEMA.names if name != "holes"]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(load_settings(None, environ={}, overrides={"lake.root": str(tmp_path / "my lake")}))


def _row(number: int, *, job: str = "silver", generation: str = "g1", **more: Any) -> LedgerRow:
    """A row that was committed `number` seconds after NOW."""
    batch = BatchRow(job, generation, number, {"0": [number, number + 1]}, rows_read=1, inserted=1, started_at=NOW, **more)
    return replace(batch.committed(), committed_at=NOW + timedelta(seconds=number))


def _numbers(rows: list[LedgerRow]) -> list[int]:
    return [row.batch_id for row in rows]


def _change_log(path: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change each action of the table's log."""
    for file in sorted((Path(path) / "_delta_log").glob("*.json")):
        actions = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for action in actions:
            change(action)
        file.write_text("".join(f"{json.dumps(action)}\n" for action in actions), encoding="utf-8")


def _without_statistics(action: dict[str, Any]) -> None:
    if "add" in action:
        action["add"].pop("stats", None)


@pytest.fixture(params=["statistics", "no statistics", "statistics of some files"])
def filled(request: pytest.FixtureRequest, ledger: Ledger) -> Ledger:
    """Rows 0 to 5 of Silver, of two generations, and one of Bronze, each in a file of its own; the first two in one."""
    ledger.append([_row(0), _row(1)])
    for number in (2, 3):
        ledger.append([_row(number)])
    for number in (4, 5):
        ledger.append([_row(number, generation="g2")])
    ledger.append([_row(9, job="bronze")])
    turns: Iterator[int] = iter(range(100))

    def change(action: dict[str, Any]) -> None:
        if request.param == "no statistics" or (request.param != "statistics" and "add" in action and next(turns) % 2):
            _without_statistics(action)

    _change_log(ledger.path, change)
    return ledger


def test_rows_are_found_with_and_without_statistics(filled: Ledger) -> None:
    reader = filled.reader()

    assert _numbers(reader.rows(job="silver")) == [0, 1, 2, 3, 4, 5]
    assert _numbers(reader.rows(job="silver", generation="g1")) == [0, 1, 2, 3]
    assert _numbers(reader.rows(generation="g1")) == [0, 1, 2, 3, 9]
    assert _numbers(reader.rows(job="silver", after=NOW + timedelta(seconds=3))) == [4, 5]
    assert reader.batches("silver", "g2") == {("g2", 4), ("g2", 5)}
    assert reader.rows(job="gold") == []
    last = reader.last("silver", "g1")
    assert last is not None
    assert last.batch_id == 3
    assert set(_numbers(reader.rows(job="silver", newest=2))) >= {4, 5}
    assert {(row.job, row.batch_id) for row in reader.newest_of_each_job(1)} >= {("silver", 5), ("bronze", 9)}


def test_statistics_say_which_files_to_open(ledger: Ledger) -> None:
    for job in ("bronze", "silver"):
        ledger.append([_row(0, job=job)])
    for number in range(1, 4):
        ledger.append([_row(number)])
    paths = [unquote(uri.removeprefix("file://")) for uri in DeltaTable(ledger.path).file_uris()]
    Path(next(path for path in paths if pq.read_table(path)["job"][0].as_py() == "bronze")).unlink()

    assert _numbers(ledger.batches("silver")) == [0, 1, 2, 3]
    assert _numbers(ledger.reader().rows(job="silver", newest=2)) == [2, 3]
    assert _numbers(ledger.since("silver", NOW + timedelta(seconds=1))) == [2, 3]


def test_statistics_that_were_cut_or_rounded_hide_no_row(ledger: Ledger) -> None:
    generation = "rebuild-" + "z" * 60
    ledger.append([_row(1, generation=generation)])

    def cut(action: dict[str, Any]) -> None:
        if "add" in action:
            stats = json.loads(action["add"]["stats"])
            for bounds in ("minValues", "maxValues"):
                stats[bounds]["generation"] = stats[bounds]["generation"][:32]
                stats[bounds]["committed_at"] = "2026-01-28T10:00:01.123Z"  # of ....123456
            action["add"]["stats"] = json.dumps(stats)

    _change_log(ledger.path, cut)

    assert _numbers(ledger.reader().rows(generation=generation)) == [1]
    assert _numbers(ledger.since("silver", NOW + timedelta(seconds=1, microseconds=-100))) == [1]


def test_rows_of_the_first_version_are_read(ledger: Ledger) -> None:
    old = {**_row(0).columns(), "late": None, "versions": None}
    write_deltalake(ledger.path, pa.Table.from_pylist([old], SCHEMA).select(FIRST_COLUMNS), mode="append")
    assert "holes" not in DeltaTable(ledger.path).schema().to_json()

    [row] = ledger.batches("silver")
    assert (row.kind, row.offsets, row.holes, row.versions, row.late) == (Kind.BATCH, {"0": [0, 1]}, {}, {}, 0)
    assert (row.started_at, row.committed_at) == (NOW, NOW)
    ledger.record(_row(1, holes={"0": [[1, 2]]}))
    assert [row.holes for row in ledger.batches("silver")] == [{}, {"0": [[1, 2]]}]
    assert ledger.covered("silver") == {0: [(0, 1)]}


def test_times_that_spark_once_wrote_without_a_zone_are_read(ledger: Ledger) -> None:
    ledger.append([_row(0)])
    (uri,) = DeltaTable(ledger.path).file_uris()
    path = Path(uri.removeprefix("file://").replace("%20", " "))
    pq.write_table(pq.read_table(path), path, use_deprecated_int96_timestamps=True)
    _change_log(
        ledger.path,
        lambda action: action["add"].update(size=path.stat().st_size) if "add" in action else None,
    )
    ledger.append([_row(1)])

    assert [row.committed_at for row in ledger.batches("silver")] == [NOW, NOW + timedelta(seconds=1)]


@pytest.mark.parametrize(("said", "kind"), [("rebuild", Kind.REBUILD), ("a later one", Kind.BATCH), (None, Kind.BATCH)])
def test_row_that_says_its_kind_is_taken_at_its_word(ledger: Ledger, said: str | None, kind: Kind) -> None:
    rows = pa.Table.from_pylist([_row(0).columns()], SCHEMA).append_column("kind", pa.array([said], pa.string()))
    write_deltalake(ledger.path, rows, mode="append")
    ledger.append([_row(1)])

    assert [row.kind for row in ledger.batches("silver")] == [kind, Kind.BATCH]


def test_row_comes_back_from_the_table_as_it_was_given(ledger: Ledger) -> None:
    counts: dict[str, Any] = dict.fromkeys(COUNTS[2:], 2)
    row = _row(0, holes={"0": [[0, 1]]}, versions={"silver.api_usage_events": 3}, **counts)
    ledger.append([row])

    assert ledger.batches("silver") == [row]
    assert LedgerRow.from_columns(row.columns()) == row


def test_lake_without_a_ledger_has_no_rows() -> None:
    reader = LedgerReader(None)

    assert (reader.rows(), reader.newest_of_each_job(3), reader.batches("silver"), reader.last("silver", "g")) == (
        [],
        [],
        set(),
        None,
    )
