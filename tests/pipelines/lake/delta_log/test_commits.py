"""Commits as the log has them: which are the project's own, and that nobody else's metadata is taken for ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from pipelines.lake.delta_log.commit_values import said
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.restores import FoundRestores, Restore, find_restores
from pipelines.lake.ledger.attempts import batch_commits, find_batch
from pipelines.lake.ledger_row import BatchRow
from pipelines.runtime.restores import restored_since

ROW = BatchRow("bronze", "abc", 3, {"0": [5, 9]}, holes={"0": [[6, 7]]}, started_at=datetime(2026, 1, 28, tzinfo=UTC))
OURS = ROW.metadata()
OTHERS: dict[str, object] = {
    "free text": "Nightly compaction, see the wiki.",
    "cut JSON": '{"job": "bronze", "batch_id"',
    "a list": "[1, 2]",
    "a number": "17",
    "true": "true",
    "null": "null",
    "empty": "",
    "blank": "  ",
    "a text": '"bronze"',
    "another shape": '{"owner": "bi", "ticket": 12}',
    "NaN": '{"job": NaN}',
    "deep": "[" * 100_000,
    "deep object": '{"a":' * 100_000,
    "huge": json.dumps({"note": "x" * 2_000_000}),
    **{
        f"{key} is {value!r}": json.dumps({**OURS, key: value})
        for key, value in (
            ("job", ["bronze"]),
            ("job", None),
            ("generation", 7),
            ("generation", None),
            ("generation", ""),
            ("batch_id", "3"),
            ("batch_id", 3.0),
            ("batch_id", True),
            ("batch_id", -1),
            ("batch_id", None),
            ("batch_id", 10**40),
            ("offsets", [[5, 9]]),
            ("offsets", {"0": 9}),
            ("offsets", {"0": [5]}),
            ("offsets", {"0": ["5", "9"]}),
            ("offsets", {"x": [5, 9]}),
            ("offsets", None),
            ("holes", [1]),
            ("holes", {"0": [6, 7]}),
            ("versions", [1]),
            ("versions", {"bronze": "1"}),
            ("rows_read", "4"),
            ("started_at", 0),
            ("started_at", "yesterday"),
            ("started_at", "2026-01-28T00:00:00"),
            ("started_at", None),
        )
    },
    **{
        f"without {key}": json.dumps({k: v for k, v in OURS.items() if k != key}) for key in ("batch_id", "offsets", "started_at")
    },
}
"""Metadata that others may write, by what it is."""
ODD_INFO: dict[str, Any] = {
    "no information": None,
    "a list": [],
    "metadata that is a number": {"operation": "OPTIMIZE", "userMetadata": 5},
    "metadata that is our row": {"operation": "WRITE", "userMetadata": OURS},
    "parameters that are a list": {"operation": "RESTORE", "operationParameters": [1]},
    "a RESTORE without a version": {"operation": "RESTORE", "operationParameters": {"version": None}},
    "a RESTORE to a word": {"operation": "RESTORE", "operationParameters": {"version": "x"}},
    "an operation that is a number": {"operation": 9},
    "a time that is a text": {"timestamp": "now"},
    "a time beyond the calendar": {"timestamp": 10**300},
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A table with one batch of ours."""
    path = str(tmp_path / "table")
    write_deltalake(path, pa.table({"x": [0]}))
    _append(path, ROW, OURS)
    return path


def _append(path: str, row: BatchRow, metadata: Mapping[str, Any]) -> None:
    properties = CommitProperties(
        custom_metadata={"userMetadata": json.dumps(metadata)},
        app_transactions=[Transaction(f"lakehouse-{row.job}-{row.generation}", row.batch_id)],
    )
    write_deltalake(path, pa.table({"x": [1]}), mode="append", commit_properties=properties)


def _commit(path: str, info: Any) -> None:
    """Add a commit that changes nothing, as it stands."""
    version = DeltaTable(path).version() + 1
    (Path(path) / "_delta_log" / f"{version:020d}.json").write_text(json.dumps({"commitInfo": info}) + "\n")


def test_batch_of_ours_is_found_with_its_version(path: str) -> None:
    found = find_batch(path, "bronze", "abc", 3)

    assert found is not None
    assert (found.version, found.is_merge, found.row) == (1, False, ROW)
    assert batch_commits(path, "bronze") == [found]
    assert find_batch(path, "bronze", "abc", 4) is None
    assert batch_commits(path, "silver") == []


@pytest.mark.parametrize("metadata", OTHERS.values(), ids=OTHERS.keys())
def test_metadata_of_others_is_ignored(path: str, metadata: str) -> None:
    """As of a compaction, and of rows that somebody appended."""
    mine = batch_commits(path, "bronze")
    properties = CommitProperties(custom_metadata={"userMetadata": metadata})
    DeltaTable(path).optimize.compact(commit_properties=properties)
    write_deltalake(path, pa.table({"x": [2]}), mode="append", commit_properties=properties)
    DeltaTable(path).delete("x = 2", commit_properties=properties)

    assert batch_commits(path, "bronze") == mine
    assert find_batch(path, "bronze", "abc", 3) == mine[0]
    assert restored_since(path, 1) is None
    assert _restores(path) == []


def test_copy_of_our_metadata_is_no_batch(path: str) -> None:
    mine = batch_commits(path, "bronze")
    properties = CommitProperties(custom_metadata={"userMetadata": json.dumps(OURS)})
    DeltaTable(path).optimize.compact(commit_properties=properties)
    write_deltalake(path, pa.table({"x": [2]}), mode="append", commit_properties=properties)

    assert batch_commits(path, "bronze") == mine


@pytest.mark.parametrize("info", ODD_INFO.values(), ids=ODD_INFO.keys())
def test_commit_of_another_shape_is_passed_over(path: str, info: Any) -> None:
    mine = batch_commits(path, "bronze")
    _commit(path, info)

    assert batch_commits(path, "bronze") == mine
    assert [commit.version for commit in newest_commits(path, 2)] == [2, 1, 0]
    is_restore = isinstance(info, dict) and info.get("operation") == "RESTORE"
    assert restored_since(path, 1) == (2 if is_restore else None)
    assert _restores(path) == []
    assert next(newest_commits(path, 2)).at is None


def test_batch_is_found_behind_many_compactions(path: str) -> None:
    mine = batch_commits(path, "bronze")
    for _ in range(60):
        _commit(path, {"operation": "OPTIMIZE", "userMetadata": "again"})

    assert batch_commits(path, "bronze") == mine
    assert find_batch(path, "bronze", "abc", 3) == mine[0]


def test_batches_that_a_restore_took_back_are_left_out(path: str) -> None:
    _append(path, ROW, {**OURS, "batch_id": 3})
    for number in (4, 5):
        row = BatchRow("bronze", "abc", number, {"0": [9, 10]}, started_at=ROW.started_at)
        _append(path, row, row.metadata())
    DeltaTable(path).restore(3)
    row = BatchRow("bronze", "def", 0, {"0": [9, 11]}, started_at=ROW.started_at)
    _append(path, row, row.metadata())

    assert [(one.version, *one.batch) for one in batch_commits(path, "bronze")] == [
        (1, "abc", 3),
        (2, "abc", 3),
        (3, "abc", 4),
        (6, "def", 0),
    ]
    assert restored_since(path, 3) == 5
    assert _restores(path) == [(5, 3)]


def test_commit_says_what_it_did_to_rows(path: str) -> None:
    write_deltalake(path, pa.table({"x": [2, 3]}), mode="append")
    DeltaTable(path).delete("x = 2")
    DeltaTable(path).optimize.compact()
    DeltaTable(path).alter.set_table_properties({"delta.appendOnly": "true"})
    commits = {commit.version: commit for commit in newest_commits(path, 5, after=1)}

    assert [(commits[n].operation, commits[n].changes_rows) for n in (2, 3, 4, 5)] == [
        ("WRITE", True),
        ("DELETE", True),
        ("OPTIMIZE", False),
        ("SET TBLPROPERTIES", False),
    ]
    assert (commits[2].added_rows, commits[3].added_rows) == (2, 1)
    assert commits[5].configuration == {"delta.appendOnly": "true"}
    assert commits[2].at is not None
    assert commits[2].writer.startswith("delta-rs")


def test_only_an_object_is_said() -> None:
    assert said('{"rollback": {"to": 3}}') == {"rollback": {"to": 3}}
    assert [said(one) for one in ("[]", "{", None, 3, b"{}")] == [{}] * 5


def _restores(path: str) -> list[tuple[int, int | None]]:
    return [(one.version, one.kept) for one in find_restores(path, DeltaTable(path).version()).restores if one.kept is not None]


def test_restore_that_was_taken_back_itself_took_nothing_back(path: str) -> None:
    for number in (4, 5):
        row = BatchRow("bronze", "abc", number, {"0": [9, 10]}, started_at=ROW.started_at)
        _append(path, row, row.metadata())
    DeltaTable(path).restore(1)
    DeltaTable(path).restore(2)

    assert [one.row.batch_id for one in batch_commits(path, "bronze")] == [3, 4]
    # Each is a reason to refuse an old checkpoint all the same.
    assert _restores(path) == [(5, 2), (4, 1)]


def test_restores_are_found_since_a_version_or_among_the_newest(path: str) -> None:
    DeltaTable(path).restore(0)
    for _ in range(5):
        _commit(path, {"operation": "OPTIMIZE"})

    version = DeltaTable(path).version()
    assert [one.version for one in find_restores(path, version, since=1, at_least=0).restores] == [2]
    assert find_restores(path, version, since=2, at_least=0).restores == ()
    assert find_restores(path, version, at_least=5) == FoundRestores((), version - 4)
    assert find_restores(path, version, since=version, at_least=6).restores == (Restore(2, 0),)
    assert find_restores(path, version).oldest == 0
