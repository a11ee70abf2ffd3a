"""An earlier state under a new generation, where the source still has what came after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lakehouse.operations.checkpoints.copying import write_copy
from lakehouse.operations.checkpoints.reading import read_checkpoint
from lakehouse.operations.checkpoints.rewind import RewindPlan, plan_rewind
from lakehouse.operations.checkpoints.verify import verify_checkpoint
from pipelines.lake.errors import CheckpointError, DataLossError, TransientError, UsageError
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import BRONZE, SILVER

_ENDS = [{0: 2}, {0: 4, 1: 1}, {0: 4, 1: 3}, {0: 6, 1: 3}]


def plan(lake: Any, path: Path, to_batch: int) -> RewindPlan:
    return plan_rewind(lake.settings, open_storage(str(path)), open_storage(str(path.parent / "g2")), to_batch)


def test_new_generation_ends_with_the_batch_and_knows_what_comes_again(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    topic.send(0, 6)
    topic.send(1, 3)
    lake.append(BRONZE, batch=3)
    path = lake.checkpoint("bronze", _ENDS)
    (path / "offsets/.3.crc").write_text("")
    (path / "offsets/.1.crc.tmp").write_text("")
    found = plan(lake, path, 1)
    assert (found.batches_again, found.records_again) == ([2, 3], 4)
    assert not (path.parent / "g2").exists()
    write_copy(found.copy)
    before, after = (read_checkpoint(open_storage(str(path.parent / name))) for name in ("g1", "g2"))
    assert set(after.entries) == {
        *("lakehouse.json", "metadata", "sources/0/0"),
        *(f"{folder}/{batch}" for folder in ("offsets", "commits") for batch in (0, 1)),
    }
    assert after.planned == {batch: before.planned[batch] for batch in (0, 1)}
    assert before.marker is not None
    assert after.marker is not None
    assert after.marker.generation == found.copy.generation != before.marker.generation
    assert after.query_id != before.query_id
    verdict = verify_checkpoint(lake.settings, open_storage(str(path.parent / "g2")))
    assert [finding.id for finding in verdict.findings] == ["not-run"]


def test_lost_range_after_the_batch_is_named_and_refused(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    topic.send(0, 6)
    topic.send(1, 3)
    path = lake.checkpoint("bronze", _ENDS)
    topic.forget(0, 5)
    with pytest.raises(DataLossError, match=r"partition 0: 4 to 4 \(1\);") as refused:
        plan(lake, path, 1)
    assert "partition 1" not in str(refused.value)
    assert plan(lake, path, 3).batches_again == []


def test_topic_made_anew_or_cut_is_refused(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    topic.send(0, 1)
    path = lake.checkpoint("bronze", _ENDS)
    with pytest.raises(DataLossError, match="partition 0: Kafka ends at 1, expected at least 2"):
        plan(lake, path, 0)
    lake.topic_id = "the topic before"
    with pytest.raises(DataLossError, match="made anew"):
        plan(lake, lake.checkpoint("bronze", _ENDS, name="g7"), 0)


def test_kafka_that_is_silent_decides_nothing(lake: Any) -> None:
    with pytest.raises(TransientError, match="does not answer"):
        plan(lake, lake.checkpoint("bronze", _ENDS), 1)


@pytest.mark.parametrize(("to_batch", "commits"), [(4, range(4)), (3, range(3))])
def test_batch_that_is_none_or_was_not_finished_is_refused(to_batch: int, commits: range, lake: Any) -> None:
    path = lake.checkpoint("bronze", _ENDS, commits=commits)
    with pytest.raises(UsageError, match=f"Batch {to_batch} is not among the finished batches"):
        plan(lake, path, to_batch)


def test_broken_batch_and_kept_state_are_refused(lake: Any) -> None:
    path = lake.checkpoint("bronze", _ENDS)
    (path / "offsets/1").write_text("")
    with pytest.raises(CheckpointError, match=r"offsets/1 .* is empty"):
        plan(lake, path, 2)
    state = path / "state/0/0/1.delta"
    state.parent.mkdir(parents=True)
    state.write_text("")
    with pytest.raises(CheckpointError, match="operators' state"):
        plan(lake, path, 3)


def test_silver_reads_versions_again_and_the_ledger_counts_their_records(lake: Any) -> None:
    for batch in range(3):
        lake.append(BRONZE, [(0, batch)])
        lake.append(SILVER, batch=batch)
        lake.record("silver", batch, {"0": [batch, batch + 1]}, rows_read=10 + batch)
    path = lake.checkpoint("silver", [(3, -1), (4, -1), (5, -1)])
    found = plan(lake, path, 0)
    assert (found.batches_again, found.records_again) == ([1, 2], 23)
    lake.table(BRONZE).create_checkpoint()
    for version in range(4):
        (Path(BRONZE.path(lake.settings)) / "_delta_log" / f"{version:020}.json").unlink()
    with pytest.raises(DataLossError, match="versions 3 to 3 cannot be read again"):
        plan(lake, path, 0)
