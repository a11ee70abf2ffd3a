"""Bronze's sink: each Kafka record once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from pipelines.bronze.transforms import UNREADABLE_TIME, build_bronze_rows, drop_known
from pipelines.lake import failpoints
from pipelines.lake.causes.chain import trace_of
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.errors import DataLossError
from pipelines.lake.lease.layers import Lease
from pipelines.lake.ledger.attempts import batch_commits, find_batch
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.logging import Log
from pipelines.lake.tables import BRONZE
from pipelines.runtime import delta
from pipelines.runtime.coverage import read_coverage
from pipelines.runtime.kafka_columns import in_ranges

JOB = "bronze"
_LOG = Log(JOB)
_ROWS_IN_ONE_FILE = 20_000
_CANNOT_CONVERT = ("overflows when converting to Spark's microsecond-precision", UNREADABLE_TIME)
"""What Spark's source, or its first transform, says of a record whose time it cannot hold."""
_COORDINATES = ["_kafka_topic", "_kafka_partition", "_kafka_offset"]


@dataclass
class BronzeSink:
    """Appends a batch of Kafka records to Bronze.

    Guarantee: each (topic, partition, offset) stands once. A batch that runs again is skipped by Delta's transaction
    id; a fresh checkpoint that reads a range again finds what the table has, or had before it moved to the archive, and
    drops it. A batch with a Kafka time that Spark's source cannot convert is read by the plain client, and appended under the
    same id.
    """

    path: str
    checkpoint: Checkpoint
    ledger: Ledger
    lease: Lease
    planned: Callable[[int], tuple[dict[int, int], dict[int, int]]]
    """First and end (exclusive) offset of each partition of a batch."""
    refuse_new_topic: Callable[[], None]
    """Raises DataLossError where the topic was made anew: its records must not be taken for those of the old one."""
    read_plainly: Callable[[SparkSession, Mapping[int, int], Mapping[int, int]], DataFrame]
    """Reads the records from the first up to the end (exclusive) offset of each partition without Spark's source."""
    archived: Callable[[], Mapping[int, list[tuple[int, int]]]] = dict
    """For each partition the ranges [start, end) that have moved to the archive, merged."""
    _has_begun: bool = field(default=False)
    _covered: dict[int, int] | None = field(default=None)
    """For each partition the end (exclusive) of what the table holds; read when the first batch comes."""

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch and its ledger row."""
        with self.lease.hold() as others_wrote:
            if others_wrote:
                self._covered = None
            self._write_batch(batch, batch_id, datetime.now(UTC))

    def _write_batch(self, batch: DataFrame, batch_id: int, started: datetime) -> None:
        spark = batch.sparkSession
        if not self._has_begun and self._recover(spark, batch_id):
            return
        self._has_begun = True
        if self._covered is None:
            self._settle(spark)
            self._covered = read_coverage(spark, self.path, self.ledger)
        start, end = self.planned(batch_id)
        row = BatchRow(
            job=JOB,
            generation=self.checkpoint.generation,
            batch_id=batch_id,
            offsets=_offsets(start, end),
            started_at=started,
        )
        # The consumer goes on at the same offsets in whatever topic has the name now.
        self.refuse_new_topic()
        failpoints.reach("bronze.before_append")
        try:
            appended = self._append(build_bronze_rows(batch, started), row, start, end)
        except Exception as error:
            if not any(said in trace_of(error) for said in _CANNOT_CONVERT):
                raise
            _LOG.warning("batch has a Kafka time that Spark cannot convert, reading it with the plain client", batch=batch_id)
            records = self.read_plainly(spark, start, end)
            appended = self._append(build_bronze_rows(records, started, F.col("timestamp_ms")), row, start, end)
        failpoints.reach("bronze.after_append")
        self._record(row, *appended)
        failpoints.reach("bronze.after_ledger")
        self._covered.update({partition: max(stop, self._covered.get(partition, 0)) for partition, stop in end.items()})

    def _append(self, rows: DataFrame, row: BatchRow, start: Mapping[int, int], end: Mapping[int, int]) -> tuple[int, int, int]:
        """Append those of `rows` that are new; return how many were read and written, and the version."""
        spark, covered = rows.sparkSession, self._covered or {}
        seen, written = Observation(), Observation()
        rows = rows.observe(seen, F.count(F.lit(1)).alias("rows"))
        if any(start.get(partition, 0) < covered.get(partition, 0) for partition in end):
            known = spark.read.format("delta").load(self.path).where(in_ranges(start, end)).select(_COORDINATES)
            rows = drop_known(self._drop_archived(rows, start, end), known)
        rows = rows.observe(written, F.count(F.lit(1)).alias("rows"))
        if sum(stop - start.get(partition, 0) for partition, stop in end.items()) <= _ROWS_IN_ONE_FILE:
            # Live, a task and a file for each Kafka partition would be most of the batch's time, and of Silver's.
            rows = rows.coalesce(1)
        app_id, metadata = self.checkpoint.app_id(), row.metadata()
        version = delta.append(rows, self.path, app_id=app_id, batch_id=row.batch_id, metadata=metadata)
        return seen.get["rows"], written.get["rows"], version

    def _drop_archived(self, rows: DataFrame, start: Mapping[int, int], end: Mapping[int, int]) -> DataFrame:
        """Drop rows that Bronze had and the archive has now: read again, they would come back as new ones."""
        spans = [
            (partition, first, stop)
            for partition, found in self.archived().items()
            for first, stop in found
            if first < end.get(partition, 0) and stop > start.get(partition, 0)
        ]
        if not spans:
            return rows
        moved = rows.sparkSession.createDataFrame(spans, "p int, first bigint, stop bigint")
        offset = F.col("_kafka_offset")
        is_moved = (F.col("_kafka_partition") == F.col("p")) & (offset >= F.col("first")) & (offset < F.col("stop"))
        return rows.join(F.broadcast(moved), on=is_moved, how="left_anti")

    def _record(self, row: BatchRow, read: int, inserted: int, version: int) -> None:
        versions = {str(BRONZE): version}
        self.ledger.record(replace(row, rows_read=read, inserted=inserted, already_present=read - inserted, versions=versions))
        _LOG.info("batch written", batch=row.batch_id, rows=inserted, version=version)

    def _recover(self, spark: SparkSession, batch_id: int) -> bool:
        """Finish the ledger of a batch that was committed before a crash; True where there was one.

        Raises DataLossError where that batch read other offsets than this one would: the checkpoint is not the one that it
        had, and what lies between would be taken for written.
        """
        done = delta.transaction_version(spark, self.path, self.checkpoint.app_id())
        if done is None or done < batch_id:
            return False
        generation = self.checkpoint.generation
        # The ledger first: the table's newest commits are all others', where a replay died and the stream went on.
        recorded = self.ledger.offsets(JOB, generation, batch_id)
        if recorded is not None:
            self._refuse_other_offsets(batch_id, recorded)
            return True
        commit = find_batch(self.path, JOB, generation, batch_id)
        if commit is None:
            msg = (
                f"Bronze says that batch {batch_id} of generation {generation} was written, but no commit in its log shows it; "
                "the table was restored or the checkpoint is old: start with a new checkpoint path "
                "(playbooks/checkpoint-lost.md)."
            )
            raise DataLossError(msg)
        self._refuse_other_offsets(batch_id, commit.row.offsets)
        self._complete(spark, commit.row, commit.version)
        return True

    def _refuse_other_offsets(self, batch_id: int, written: Mapping[str, list[int]]) -> None:
        expected = _offsets(*self.planned(batch_id))
        if written != expected:
            msg = (
                f"Batch {batch_id} of generation {self.checkpoint.generation} was written with offsets {json.dumps(written)}, "
                f"but the checkpoint plans it with {json.dumps(expected)}: it is an old copy, and going on would skip what lies "
                "between; make a new one with `lakehouse checkpoint rebuild bronze` (playbooks/checkpoint-lost.md)."
            )
            raise DataLossError(msg)

    def _settle(self, spark: SparkSession) -> None:
        """Finish the ledger of other runs' batches that died after their commit: their checkpoints may be lost."""
        known = self.ledger.known(JOB)
        for commit in batch_commits(self.path, JOB):
            if commit.batch not in known:
                self._complete(spark, commit.row, commit.version)

    def _complete(self, spark: SparkSession, row: BatchRow, version: int) -> None:
        """Write the ledger row of a batch whose rows the table has since `version`."""
        start = {int(partition): first for partition, (first, _) in row.offsets.items()}
        end = {int(partition): stop for partition, (_, stop) in row.offsets.items()}
        table = spark.read.format("delta").option("versionAsOf", version).load(self.path).where(in_ranges(start, end))
        inserted = table.where(F.col("_ingested_at") == F.lit(row.started_at)).count()
        self._record(row, table.count(), inserted, version)


def _offsets(start: Mapping[int, int], end: Mapping[int, int]) -> dict[str, list[int]]:
    """Offsets [start, end) of each partition, as the ledger has them."""
    return {str(partition): [start.get(partition, 0), stop] for partition, stop in sorted(end.items())}
