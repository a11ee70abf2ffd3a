"""A batch of Bronze that died after its commit is completed by the next run, whatever others have committed in between."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import CommitProperties, DeltaTable
from pyspark.sql import DataFrame, SparkSession

from pipelines.bronze.schema import TABLE
from pipelines.bronze.sink import BronzeSink
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE
from pipelines.runtime import delta
from tests.failing import dies_at

_KAFKA = (
    "topic string, partition int, offset bigint, timestamp timestamp, timestampType int, key binary, "
    "headers array<struct<key:string,value:binary>>, value binary"
)
METADATA = (
    "Nightly compaction, see the wiki.",
    "[1, 2]",
    "17",
    '{"job": "bronze", "generation": "g", "batch_id": "0"}',
    '{"job": "bronze", "generation": "g", "batch_id": 0, "offsets": 7, "started_at": null}',
    '{"a":' * 5_000,
)


def _records(spark: SparkSession, first: int, stop: int) -> DataFrame:
    at = datetime(2026, 1, 28, 10, tzinfo=UTC)
    return spark.createDataFrame([("t", 0, n, at, 0, None, None, b"{}") for n in range(first, stop)], _KAFKA)


def test_metadata_of_others_does_not_stop_a_batch_that_runs_again(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(None, environ={}, overrides={"lake.root": str(tmp_path / "lake"), "lake.state_dir": str(tmp_path)})
    path, ledger = BRONZE.path(settings), Ledger(settings)
    delta.ensure_table(spark, TABLE, path)
    checkpoint = Checkpoint(path="c", generation="g", job="bronze", source="t", target="b", starting="", is_new=True)

    def sink() -> BronzeSink:
        lease = lease_of(settings, "bronze", job="bronze", run="g")
        planned = lambda n: ({0: 2 * n}, {0: 2 * n + 2})  # noqa: E731
        return BronzeSink(path, checkpoint, ledger, lease, planned, lambda: None, lambda spark, *_: _records(spark, 0, 0))

    for number, metadata in enumerate(METADATA):
        batch = _records(spark, 2 * number, 2 * number + 2)
        with dies_at(monkeypatch, "bronze.after_append"), pytest.raises(InterruptedError):
            sink()(batch, number)
        version = DeltaTable(path).version()
        DeltaTable(path).optimize.compact(commit_properties=CommitProperties(custom_metadata={"userMetadata": metadata}))
        # Nothing to compact is no commit: a property that no reader looks at is one in any case.
        DeltaTable(path).alter.set_table_properties(
            {"owner": str(number)},
            raise_if_not_exists=False,
            commit_properties=CommitProperties(custom_metadata={"userMetadata": metadata}),
        )
        assert DeltaTable(path).version() > version

        sink()(batch, number)

    rows = sorted(ledger.batches("bronze"), key=lambda row: row.batch_id)
    assert [(row.batch_id, row.rows_read, row.inserted) for row in rows] == [(n, 2, 2) for n in range(len(METADATA))]
    assert [row.offsets for row in rows] == [{"0": [2 * n, 2 * n + 2]} for n in range(len(METADATA))]
    offsets = DeltaTable(path).to_pyarrow_table(columns=["_kafka_offset"]).column(0).to_pylist()
    assert sorted(offsets) == list(range(2 * len(METADATA)))
