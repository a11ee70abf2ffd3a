"""Silver's checkpoint when it is an old copy, after a crash, and made anew for a stream that had read everything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lakehouse.operations.checkpoints.rebuild import plan_rebuild, write_rebuild
from pipelines.lake.errors import CheckpointError
from pipelines.lake.tables import BRONZE, DLQ, LEDGER, SILVER

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]


@pytest.fixture
def append(lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]) -> Callable[..., None]:
    """Adds one commit of one record to Bronze and runs Silver; `value` instead of a valid event."""

    def add(offset: int, value: bytes | None = b"", checkpoint: str = "g1") -> None:
        lake.append(make_record(make_event(event_id=f"e{offset}") if value == b"" else value, offset))
        lake.run_silver(checkpoint)

    return add


# What the batches leave: events, dead letters, and of a tombstone nothing but a row of the ledger.
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", marks=pytest.mark.faults),
        b"{",
        pytest.param(None, marks=pytest.mark.faults),
    ],
)
def test_old_copy_is_refused_before_a_batch_is_written(lake: Lake, append: Callable[..., None], value: bytes | None) -> None:
    path = lake.folder / "checkpoints/silver/g1"
    append(0)
    shutil.copytree(path, lake.folder / "backup")
    append(1, value)
    append(2, value)
    shutil.rmtree(path)
    shutil.copytree(lake.folder / "backup", path)
    before = [lake.version(table) for table in (SILVER, DLQ, LEDGER)]

    with pytest.raises(CheckpointError, match=r"ends at batch 0, but batch 2 of its generation .*checkpoint-lost\.md"):
        append(3)

    assert [lake.version(table) for table in (SILVER, DLQ, LEDGER)] == before
    assert {file.name for file in (path / "offsets").iterdir() if file.name.isdigit()} == {"0"}
    # The way out that the sentence names.
    plan = plan_rebuild(lake.settings, "silver")
    write_rebuild(plan)
    append(4, checkpoint=Path(plan.target.path).name)
    assert lake.counts()["rows_read"] - lake.counts().get("already_present", 0) == 5


def test_crash_before_the_commit_file_is_no_old_copy(lake: Lake, append: Callable[..., None]) -> None:
    append(0)
    append(1)
    newest = lake.folder / "checkpoints/silver/g1/commits/1"
    newest.unlink()
    newest.with_name(".1.crc").unlink(missing_ok=True)

    append(2)

    assert len(lake.rows(SILVER)) == 3
    assert lake.counts()["rows_read"] == 3


def test_new_checkpoint_of_a_stream_that_had_read_all_begins_at_the_end(lake: Lake, append: Callable[..., None]) -> None:
    for offset in range(3):
        append(offset)
    newest = max(lake.rows(LEDGER), key=lambda row: row["committed_at"])
    # A reader that has come to the end stands before the version that comes next.
    assert json.loads(newest["versions"])[str(BRONZE)] == lake.version(BRONZE) + 1

    plan = plan_rebuild(lake.settings, "silver")
    assert json.loads(plan.marker.starting) == {"bronze_version": lake.version(BRONZE)}
    write_rebuild(plan)
    append(3, checkpoint=Path(plan.target.path).name)

    assert lake.counts() == {"rows_read": 5, "inserted": 4, "already_present": 1}
