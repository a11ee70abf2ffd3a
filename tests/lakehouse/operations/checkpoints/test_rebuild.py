"""A new checkpoint from what the tables hold: never later than what is surely there, and loud where Kafka lost something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakehouse.operations.checkpoints.rebuild import RebuildPlan, plan_rebuild, write_rebuild
from pipelines.lake.checkpoint.identity import Marker
from pipelines.lake.delta_log.restores import LOOK_BACK
from pipelines.lake.errors import CheckpointError, DataLossError, TransientError, UsageError
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import is_empty
from pipelines.lake.tables import BRONZE, DLQ, GOLD_HOURLY, SILVER
from tests.lakehouse.operations.checkpoints.conftest import GENERATION


def starting(plan: RebuildPlan) -> Any:
    return json.loads(plan.marker.starting)


def ingest(lake: Any, batch: int, rows: list[tuple[int, int]]) -> int:
    """One Bronze commit and its ledger row."""
    version: int = lake.append(BRONZE, rows)
    ranges: dict[str, list[int]] = {}
    for partition, offset in rows:
        first, stop = ranges.get(str(partition), [offset, offset])
        ranges[str(partition)] = [min(first, offset), max(stop, offset + 1)]
    lake.record("bronze", batch, ranges, rows_read=len(rows), inserted=len(rows), versions={str(BRONZE): version})
    return version


def test_bronze_goes_on_after_its_last_row_in_each_partition(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake, partitions=4)
    for partition, count in ((0, 9), (1, 5), (2, 4)):
        topic.send(partition, count)
    topic.forget(2, 3)
    ingest(lake, 0, [(0, 6), (1, 4)])  # of two partitions: no statistics tell their ends
    ingest(lake, 1, [(0, 3)])
    lake.record("bronze", 2, {"2": [3, 3]})
    plan = plan_rebuild(lake.settings, "bronze")
    # The beginning of 2 was gone when Bronze first saw it, 3 is new and empty.
    assert starting(plan) == {"0": 7, "1": 5, "2": 3, "3": 0}
    assert plan.to_read == 2 + 0 + 1 + 0
    assert (plan.marker.source, plan.marker.target) == (lake.topic_id, lake.table(BRONZE).metadata().id)
    assert plan.lost == ()
    assert is_empty(plan.target)
    write_rebuild(plan)
    path = Path(plan.target.path)
    assert path == lake.folder / "checkpoints/bronze/g1"
    assert json.loads((path / "lakehouse.json").read_text())["starting"] == plan.marker.starting
    assert [file.name for file in path.iterdir()] == ["lakehouse.json"]
    with pytest.raises(CheckpointError, match="Somebody else writes"):
        write_rebuild(plan)
    assert plan_rebuild(lake.settings, "bronze").target.path.endswith("/g2")


@pytest.mark.parametrize("last", [100, 4])
def test_row_beyond_the_ledger_is_found_and_ledger_beyond_the_rows_is_not_believed(last: int, lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake, partitions=2)
    topic.send(0, 40)
    topic.send(1, 40)
    for batch in range(18):  # more files than are read at once
        ingest(lake, batch, [(0, batch), (1, batch)])
    lake.append(BRONZE, [(0, 18), (1, 30)])  # killed before its ledger row
    lake.record("bronze", 99, {"0": [0, last]})
    assert starting(plan_rebuild(lake.settings, "bronze")) == {"0": 19, "1": 31}


def test_lost_range_is_named_and_refused_unless_it_is_accepted(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    topic.send(0, 9)
    topic.send(1, 9)
    ingest(lake, 0, [(0, 4)])
    ingest(lake, 1, [(1, 8)])
    topic.forget(0, 7)
    with pytest.raises(DataLossError, match=r"partition 0: 5 to 6 \(2\);"):
        plan_rebuild(lake.settings, "bronze")
    plan = plan_rebuild(lake.settings, "bronze", accept_loss=True)
    assert [(lost.partition, lost.first, lost.last) for lost in plan.lost] == [(0, 5, 6)]
    assert starting(plan) == {"0": 7, "1": 9}


@pytest.mark.parametrize("seen", [[0, 0], None])
def test_partition_without_a_row_is_checked_against_retention_too(seen: list[int] | None, lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    topic.send(0, 2)
    topic.send(1, 5)
    topic.forget(1, 3)
    assert starting_of_new_lake(lake) == {"0": 0, "1": 3}
    ingest(lake, 0, [(0, 1)])
    if seen is not None:  # it was there and empty; otherwise it was added after Bronze's last batch
        lake.record("bronze", 1, {"1": seen})
    with pytest.raises(DataLossError, match=r"partition 1: 0 to 2 \(3\);"):
        plan_rebuild(lake.settings, "bronze")
    plan = plan_rebuild(lake.settings, "bronze", accept_loss=True)
    assert [(lost.partition, lost.first, lost.last) for lost in plan.lost] == [(1, 0, 2)]
    assert starting(plan) == {"0": 2, "1": 3}


def starting_of_new_lake(lake: Any) -> Any:
    """Where Bronze would begin that has no row and has read nothing."""
    lake.table(BRONZE)
    return starting(plan_rebuild(lake.settings, "bronze"))


def test_kafka_that_ends_before_bronze_is_refused_even_if_loss_is_accepted(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    topic.send(0, 3)
    ingest(lake, 0, [(0, 5), (7, 0)])
    with pytest.raises(DataLossError, match="partition 0: Kafka ends at 3, expected at least 6; partition 7: Kafka has none"):
        plan_rebuild(lake.settings, "bronze", accept_loss=True)


def test_topic_made_anew_is_refused(lake: Any, on_topic: Any) -> None:
    on_topic(lake)
    lake.topic_id = "the topic before"
    ingest(lake, 0, [(0, 0)])
    with pytest.raises(DataLossError, match="made anew"):
        plan_rebuild(lake.settings, "bronze", accept_loss=True)


def silver_lake(lake: Any) -> None:
    """Bronze versions 2 to 6 (0 and 1 made the table), one record each in partition 0; Silver has read up to version 5."""
    lake.table(SILVER)
    for batch in range(5):
        ingest(lake, batch, [(0, batch)])
    for batch in range(3):
        lake.record("silver", batch, {"0": [batch, batch + 1]}, versions={str(SILVER): batch + 1, str(BRONZE): batch + 3})


def test_silver_goes_on_at_the_version_that_its_last_batch_had_reached(lake: Any) -> None:
    silver_lake(lake)
    plan = plan_rebuild(lake.settings, "silver")
    assert starting(plan) == {"bronze_version": 5}
    assert plan.to_read == 2
    ids = [lake.table(name).metadata().id for name in (BRONZE, SILVER)]
    assert [plan.marker.source, plan.marker.target] == ids


def test_silver_that_had_read_all_goes_on_at_the_end(lake: Any) -> None:
    silver_lake(lake)
    lake.record("silver", 3, {"0": [3, 5]}, versions={str(BRONZE): lake.table(BRONZE).version() + 1})
    plan = plan_rebuild(lake.settings, "silver")
    assert (starting(plan), plan.to_read) == ({"bronze_version": 6}, 1)


def test_rows_that_a_restore_by_hand_took_back_are_not_left_behind(lake: Any) -> None:
    silver_lake(lake)
    for _ in range(3):
        lake.append(SILVER)
    lake.table(SILVER).restore(1)
    with pytest.raises(DataLossError, match=f"2 batches had written after it.*rollback {SILVER} --to 1 --repair"):
        plan_rebuild(lake.settings, "silver")
    # A rollback undoes their rows of the ledger, and the table's later restores are none of a new checkpoint's.
    voided = {"void.from": 1, "void.to": 3}
    lake.record("silver", 1, {}, generation=f"void:{GENERATION}", versions=voided)
    plan = plan_rebuild(lake.settings, "silver")
    assert starting(plan) == {"bronze_version": 3}
    assert Marker.decode(plan.marker.encode()).versions == {str(SILVER): 4}


def test_restore_by_hand_is_found_behind_all_that_a_later_generation_wrote(lake: Any) -> None:
    silver_lake(lake)
    for _ in range(3):
        lake.append(SILVER)
    lake.table(SILVER).restore(1)
    lake.others_commit(SILVER, LOOK_BACK + 1)
    lake.record("silver", 0, {"0": [4, 5]}, generation="later", versions={str(SILVER): lake.append(SILVER), str(BRONZE): 6})
    with pytest.raises(DataLossError, match=f"2 batches had written after it.*rollback {SILVER} --to 1 --repair"):
        plan_rebuild(lake.settings, "silver")


def test_dead_letters_that_a_restore_by_hand_took_back_are_not_left_behind(lake: Any) -> None:
    silver_lake(lake)
    for number in range(2):
        lake.record("silver", 3 + number, {"0": [3 + number, 4 + number]}, versions={str(DLQ): lake.append(DLQ), str(BRONZE): 7})
    lake.table(DLQ).restore(1)
    with pytest.raises(DataLossError, match=f"1 batches had written after it.*rollback {DLQ} --to 1 --repair"):
        plan_rebuild(lake.settings, "silver")
    # A rollback undoes their letters in the ledger, and leaves the rest of the batch.
    lake.record("silver", 4, {}, generation=f"void-dlq:{GENERATION}", versions={"void.from": 4, "void.to": 5})
    assert starting(plan_rebuild(lake.settings, "silver")) == {"bronze_version": 6}


def test_replay_of_a_late_part_does_not_hide_what_the_stream_has_not_read(lake: Any) -> None:
    silver_lake(lake)
    versions = {str(SILVER): 9, str(BRONZE): 6}
    lake.record("silver", 0, {"0": [4, 5]}, generation="replay", versions=versions)
    assert starting(plan_rebuild(lake.settings, "silver")) == {"bronze_version": 5}
    lake.record("silver", 3, {"0": [3, 4]}, versions={str(BRONZE): 6})
    assert starting(plan_rebuild(lake.settings, "silver")) == {"bronze_version": 6}


def test_scattered_replay_covers_only_what_it_saw(lake: Any) -> None:
    silver_lake(lake)
    row = {"generation": "replay", "versions": {str(BRONZE): 6}}
    lake.record("silver", 0, {"0": [0, 5]}, holes={"0": [[3, 4]]}, **row)
    assert starting(plan_rebuild(lake.settings, "silver")) == {"bronze_version": 5}


def test_lawful_hole_in_the_offsets_holds_silver_back_no_longer(lake: Any) -> None:
    lake.table(SILVER)
    version = lake.append(BRONZE, [(0, 0), (0, 5)])  # 1 to 4: transaction markers
    lake.record("bronze", 0, {"0": [0, 9]}, inserted=2, versions={str(BRONZE): version})
    lake.record("silver", 0, {"0": [0, 1]}, versions={str(BRONZE): 2})
    lake.record("silver", 1, {"0": [5, 6]}, versions={str(BRONZE): 3})
    ingest(lake, 1, [(0, 9)])
    assert starting(plan_rebuild(lake.settings, "silver")) == {"bronze_version": 3}


def test_silver_without_a_word_in_the_ledger_reads_all(lake: Any) -> None:
    lake.table(SILVER)
    ingest(lake, 0, [(0, 0)])
    lake.record("silver", 0, {"0": [0, 1]}, versions={str(SILVER): 1})
    assert starting(plan_rebuild(lake.settings, "silver")) == {"bronze_version": 0}
    lake.record("silver", 1, {"0": [0, 1]}, versions={str(BRONZE): 99})  # Bronze's log was replaced by an older one
    assert starting(plan_rebuild(lake.settings, "silver")) == {"bronze_version": 0}
    lake.table(BRONZE).create_checkpoint()
    (Path(BRONZE.path(lake.settings)) / "_delta_log" / f"{0:020}.json").unlink()
    plan = plan_rebuild(lake.settings, "silver")  # the first versions are gone: the table as it stands
    assert (plan.marker.starting, plan.to_read) == ("", 1)


@pytest.mark.parametrize(
    ("spans", "version"),
    [
        ([], 0),
        ([[1, 2]], 2),
        ([[1, 2], [2, 3]], 3),
        ([[1, 2], [5, 5]], 5),  # 3 and 4 changed no row
        ([[1, 1], [5, 5]], 1),  # 2 did
        ([[2, 5]], 0),
        ([[1, 99]], 0),  # Silver's log was replaced by an older one
    ],
)
def test_gold_goes_on_where_its_batches_left_no_gap(spans: list[list[int]], version: int, lake: Any) -> None:
    lake.table(GOLD_HOURLY)
    for _ in range(2):
        lake.append(SILVER)
    for comment in ("a", "b"):  # versions 3 and 4
        lake.table(SILVER).alter.set_table_description(comment)
    assert lake.append(SILVER) == 5
    for batch, span in enumerate(spans):
        lake.record("gold", batch, {"silver_version": span})
    assert starting(plan_rebuild(lake.settings, "gold")) == {"silver_version": version}


def test_gold_starts_where_silvers_log_begins(lake: Any) -> None:
    lake.table(GOLD_HOURLY)
    for _ in range(4):
        lake.append(SILVER)
    lake.record("gold", 0, {"silver_version": [1, 1]})
    lake.table(SILVER).create_checkpoint()
    for version in range(3):
        (Path(SILVER.path(lake.settings)) / "_delta_log" / f"{version:020}.json").unlink()
    assert starting(plan_rebuild(lake.settings, "gold")) == {"silver_version": 3}


def test_next_generation_comes_after_the_highest(lake: Any) -> None:
    silver_lake(lake)
    for name in ("g1", "g10", "g9x", "old"):
        lake.checkpoint("silver", [], name=name)
    assert plan_rebuild(lake.settings, "silver").target.path.endswith("/silver/g11")


def test_rebuild_writes_to_s3(lake: Any, bucket: str) -> None:
    silver_lake(lake)
    target = open_storage(f"{bucket}/silver/g2")
    plan = plan_rebuild(lake.settings, "silver", target)
    write_rebuild(plan)
    assert json.loads(target.read("lakehouse.json"))["generation"] == plan.marker.generation
    with pytest.raises(CheckpointError, match="is not empty"):
        plan_rebuild(lake.settings, "silver", target)


def test_what_cannot_be_rebuilt_is_one_sentence(lake: Any) -> None:
    with pytest.raises(UsageError, match="no job `platinum`"):
        plan_rebuild(lake.settings, "platinum")
    with pytest.raises(UsageError, match=r"no table bronze\.api_usage_events"):
        plan_rebuild(lake.settings, "bronze")
    lake.table(BRONZE)
    with pytest.raises(UsageError, match=r"no table silver\.api_usage_events"):
        plan_rebuild(lake.settings, "silver")
    with pytest.raises(TransientError, match="does not answer"):
        plan_rebuild(lake.settings, "bronze")
    assert not (lake.folder / "checkpoints").exists()
