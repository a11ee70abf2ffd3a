"""What Spark makes of rewound, copied and rebuilt checkpoints: Bronze ends with each record once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from lakehouse.operations.checkpoints.copying import plan_copy, write_copy
from lakehouse.operations.checkpoints.reading import read_checkpoint
from lakehouse.operations.checkpoints.rebuild import plan_rebuild, write_rebuild
from lakehouse.operations.checkpoints.rewind import plan_rewind
from lakehouse.operations.checkpoints.verify import verify_checkpoint
from pipelines.bronze import bronze_ingestion
from pipelines.lake.errors import CheckpointError, DataLossError
from pipelines.lake.ledger.known_gaps import RETENTION, Gap, record_gaps
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import Storage
from pipelines.lake.tables import BRONZE, LEDGER


def ingest(spark: SparkSession, lake: Any, folder: Storage, starting: str | None = None) -> None:
    """Run Bronze to the end of the topic."""
    query = bronze_ingestion.run(
        spark, lake.settings, checkpoint_path=folder.path, trigger="available-now", starting_offsets=starting
    )
    try:
        query.awaitTermination()
    finally:
        query.stop()


def coordinates(lake: Any) -> list[tuple[int, int]]:
    rows = lake.table(BRONZE).to_pyarrow_table(columns=["_kafka_partition", "_kafka_offset"]).to_pylist()
    return sorted((row["_kafka_partition"], row["_kafka_offset"]) for row in rows)


def counts(lake: Any, folder: Storage) -> list[tuple[int, int, int]]:
    """Batch, inserted and already present of the checkpoint's generation."""
    marker = read_checkpoint(folder).marker
    assert marker is not None
    rows = lake.table(LEDGER).to_pyarrow_table().to_pylist()
    mine = [row for row in rows if row["generation"] == marker.generation]
    return sorted((row["batch_id"], row["inserted"], row["already_present"]) for row in mine)


def findings(lake: Any, folder: Storage) -> list[str]:
    return [finding.id for finding in verify_checkpoint(lake.settings, folder).findings]


def test_no_record_is_lost_or_doubled_whatever_is_done_to_the_checkpoint(spark: SparkSession, lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    lake.more = {"bronze": {"max_offsets_per_trigger": 3}}
    root = Path(lake.settings.lake.checkpoints) / "bronze"
    g1, g2 = (open_storage(str(root / name)) for name in ("g1", "g2"))
    topic.send(0, 6)
    topic.send(1, 3)
    ingest(spark, lake, g1)
    everything = [(0, offset) for offset in range(6)] + [(1, offset) for offset in range(3)]
    assert coordinates(lake) == everything
    assert read_checkpoint(g1).commit_ids == [0, 1, 2]
    assert findings(lake, g1) == []

    rewound = plan_rewind(lake.settings, g1, g2, 0)
    assert (rewound.batches_again, rewound.records_again) == ([1, 2], 6)
    write_copy(rewound.copy)
    topic.send(1, 4)
    lake.more = {}
    ingest(spark, lake, g2)
    everything += [(1, offset) for offset in range(3, 7)]
    assert coordinates(lake) == everything
    assert counts(lake, g2) == [(1, 4, 6)]
    assert findings(lake, g2) == []

    Path(g2.path, "offsets/1").write_text("")
    assert findings(lake, g2) == ["broken-file"]
    for batch in (1, 2):  # an old copy of the checkpoint: Delta would skip what the job reads next
        for folder in ("offsets", "commits"):
            Path(g1.path, folder, str(batch)).unlink()
    assert findings(lake, g1) == ["behind-table"]
    shutil.rmtree(root)
    plan = plan_rebuild(lake.settings, "bronze")
    assert plan.to_read == 0
    write_rebuild(plan)
    assert findings(lake, plan.target) == ["not-run"]
    topic.send(1, 3)
    ingest(spark, lake, plan.target, starting=plan.marker.starting)
    assert coordinates(lake) == [*everything, *((1, offset) for offset in range(7, 10))]
    assert counts(lake, plan.target) == [(0, 3, 0)]
    assert Ledger(lake.settings).end_offsets("bronze") == {0: 6, 1: 10}


def test_restored_backup_of_a_checkpoint_is_refused_before_anything_is_read(
    spark: SparkSession, lake: Any, on_topic: Any
) -> None:
    topic = on_topic(lake)
    lake.more = {"bronze": {"max_offsets_per_trigger": 3}}
    g1, backup = (open_storage(f"{lake.folder}/{name}") for name in ("g1", "backup"))
    topic.send(0, 6)
    ingest(spark, lake, g1)
    write_copy(plan_copy(lake.settings, g1, backup))
    topic.send(0, 6)
    ingest(spark, lake, g1)
    topic.send(0, 5)
    shutil.rmtree(g1.path)
    shutil.copytree(backup.path, g1.path)
    rows, version = coordinates(lake), lake.table(BRONZE).version()

    with pytest.raises(
        CheckpointError, match=r"ends at batch 1, but batch 3 of its generation .*rebuild bronze.*checkpoint-lost"
    ):
        ingest(spark, lake, g1)
    assert (coordinates(lake), lake.table(BRONZE).version()) == (rows, version)
    assert read_checkpoint(g1).planned_ids == [0, 1]
    shutil.rmtree(Path(g1.path, "offsets"))  # the marker alone is left of it
    shutil.rmtree(Path(g1.path, "commits"))
    with pytest.raises(CheckpointError, match="ends before its first batch, but batch 3"):
        ingest(spark, lake, g1)

    plan = plan_rebuild(lake.settings, "bronze")
    write_rebuild(plan)
    ingest(spark, lake, plan.target)
    assert coordinates(lake) == [(0, offset) for offset in range(17)]


def test_new_checkpoint_does_not_begin_behind_what_retention_took(spark: SparkSession, lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    g1, g2 = (open_storage(f"{lake.folder}/{name}") for name in ("g1", "g2"))
    topic.send(0, 4)
    topic.forget(0, 2)
    ingest(spark, lake, g1)  # a new lake begins with what is there
    assert coordinates(lake) == [(0, 2), (0, 3)]
    topic.send(0, 5)
    topic.send(1, 3)
    topic.forget(0, 7)
    topic.forget(1, 1)
    shutil.rmtree(g1.path)
    version = lake.table(BRONZE).version()

    for _ in range(2):
        with pytest.raises(
            DataLossError,
            match=r"partition 0, offsets 4 to 6; partition 1, offsets 0 to 0\).*--accept-loss.*retention-overrun\.md",
        ):
            ingest(spark, lake, g1)
    assert lake.table(BRONZE).version() == version
    record_gaps(lake.settings, topic.name, {Gap(0, 4, 6): RETENTION, Gap(1, 0, 0): RETENTION})
    ingest(spark, lake, g2)
    assert coordinates(lake) == [(0, 2), (0, 3), (0, 7), (0, 8), (1, 1), (1, 2)]
