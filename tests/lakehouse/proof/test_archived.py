"""The checker reads the archive as it reads Bronze: what has moved there is proved by its own bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.archive.archiving import archive, plan_archive
from pipelines.archive.restoring import expire, plan_restore, restore
from pipelines.archive.units import Archive
from pipelines.lake.errors import LakehouseError
from pipelines.lake.tables import BRONZE

DAY = date(2026, 1, 28)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _archive(lake: Any) -> None:
    lake.write()
    done = archive(lake.settings, plan_archive(lake.settings, None, NOW), "run1", NOW, lambda _: None)
    assert done.removed == {DAY: len(lake.rows[BRONZE])}


def _violated(lake: Any) -> set[str]:
    return {result.id for result in verify(lake.settings, VerifyOptions()) if result.verdict == "violated"}


def _change_archive(lake: Any, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change rows of the archive's one file."""
    path = next(iter(Path(lake.settings.lake.root).glob("archive/**/*.parquet")))
    table = pq.read_table(path, partitioning=None)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def test_archived_lake_holds(hand_lake: Any) -> None:
    _archive(hand_lake)
    results = verify(hand_lake.settings, VerifyOptions())
    assert {result.id for result in results if result.verdict != "holds"} == {"I6"}
    records = next(result for result in results if result.id == "I1")
    assert records.counts["bronze records"] == 9
    assert records.notes[0] == "9 Bronze records are in the archive alone, and were read there"


def test_lake_with_rows_put_back_holds(hand_lake: Any) -> None:
    _archive(hand_lake)
    assert restore(hand_lake.settings, plan_restore(hand_lake.settings, DAY, DAY), "run2") == 9
    assert _violated(hand_lake) == set()


def test_record_lost_in_the_archive_is_found(hand_lake: Any) -> None:
    _archive(hand_lake)
    _change_archive(hand_lake, lambda rows: rows.pop(0))
    assert {"I1", "I3", "I13"} <= _violated(hand_lake)


def test_changed_bytes_in_the_archive_are_found(hand_lake: Any) -> None:
    _archive(hand_lake)
    _change_archive(hand_lake, lambda rows: rows[0].update(_raw_value=b"{}"))
    assert {"I11", "I13"} <= _violated(hand_lake)


def test_missing_file_of_the_archive_ends_the_check_by_name(hand_lake: Any) -> None:
    _archive(hand_lake)
    next(iter(Path(hand_lake.settings.lake.root).glob("archive/**/*.parquet"))).unlink()
    with pytest.raises(LakehouseError, match=r"I7 violated: the archive's manifest .*manifest\.json"):
        verify(hand_lake.settings, VerifyOptions())


def test_what_the_archive_gave_up_is_missed_by_nobody_and_said(hand_lake: Any) -> None:
    _archive(hand_lake)
    settings = hand_lake.settings
    after = datetime(2033, 6, 1, tzinfo=UTC)
    expire(settings, Archive.of(settings).units(), "run3", after, lambda _: None)
    results = {result.id: result for result in verify(settings, VerifyOptions())}
    assert {name for name, result in results.items() if result.verdict == "violated"} == set()
    assert any("given records up" in note for note in results["I3"].notes)


def test_copy_of_a_run_that_died_does_not_count(hand_lake: Any) -> None:
    _archive(hand_lake)
    manifest = next(iter(Path(hand_lake.settings.lake.root).glob("archive/**/manifest.json")))
    assert json.loads(manifest.read_text())["rows"] == 9
    manifest.unlink()
    assert "I1" in _violated(hand_lake)
