"""Write what was decided about a batch: rows of Silver, its dead letters, and the closing of dead letters that passed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.lake import failpoints
from pipelines.lake.ledger.ledger import BatchRow
from pipelines.lake.settings import SilverSettings
from pipelines.lake.tables import DLQ, SILVER, TableName
from pipelines.runtime import delta
from pipelines.runtime.session import instant
from pipelines.silver.batch import Batch, Targets
from pipelines.silver.dead_letters.dead_letters import close_replayed
from pipelines.silver.dedup.lookup import among, kafka_moment
from pipelines.silver.facts import REJECTED, VALID, Facts
from pipelines.silver.judge import Judged
from pipelines.silver.replacing import replace_rows
from pipelines.silver.rules import Rules
from pipelines.silver.transforms import build_dead_letters, build_silver_rows, coordinate

_ROWS_PER_FILE = 250_000


@dataclass(frozen=True)
class SilverWriter:
    """Writes a batch's decision; each write alone may run again."""

    targets: Targets
    settings: SilverSettings
    rules: Rules
    columns: Sequence[str]
    """Columns of Silver."""

    def write(self, records: DataFrame, batch: Batch, row: BatchRow, judged: Judged) -> dict[str, int]:
        """Write rows and dead letters; give the versions written, by the table's name. `row` goes into each commit."""
        failpoints.reach("silver.before_append")
        # Two tables, each write idempotent alone: side by side, the fixed cost of a commit is paid once.
        with ThreadPoolExecutor(max_workers=1) as pool:
            letters = pool.submit(self._write_dead_letters, records, batch, row, judged)
            versions = self._write_events(records, batch, row, judged)
            versions |= letters.result()
        failpoints.reach("silver.after_dead_letters")
        return versions

    def close_letters(self, spark: SparkSession, batch: Batch, judged: Judged) -> None:
        """Close the dead letters whose records Silver has now.

        Last, after the ledger row: a retry after a crash still sees them open and computes the same counts.
        """
        coordinates = judged.batch.reopened.coordinates()
        close_replayed(spark, self.targets.dlq, coordinates, self.targets.checkpoint.generation, batch.started)

    def silver_rows(self, valid: DataFrame, at: datetime) -> DataFrame:
        """Give records that pass the columns of Silver."""
        return build_silver_rows(
            valid,
            self.rules.warning,
            self.columns,
            late_after_seconds=self.settings.late_after_seconds,
            processed_at=at,
        )

    def dead_letters(self, rejected: DataFrame, at: datetime) -> DataFrame:
        """Give rejected records the columns of the dead-letter table."""
        return build_dead_letters(rejected, self.rules.rejecting, dead_lettered_at=at)

    def _write_events(self, records: DataFrame, batch: Batch, row: BatchRow, judged: Judged) -> dict[str, int]:
        fates, versions = judged.fates, dict[str, int]()
        valid = records.where(F.col("verdict") == VALID)
        # Before the append: the MERGE has this batch's own files not to look at.
        if len(fates.rewritten):
            rows = self.silver_rows(_only(valid, fates.rewritten, judged.batch.valid), batch.started)
            versions[str(SILVER)] = replace_rows(records.sparkSession, self.targets.silver, rows, fates.replaced, row.metadata())
        failpoints.reach("silver.after_replace")
        if len(fates.insert):
            rows = self.silver_rows(_only(valid, fates.insert, judged.batch.valid), batch.started)
            versions[str(SILVER)] = self._append(_in_files(rows, fates.insert), SILVER, batch, row, len(fates.insert))
        failpoints.reach("silver.after_append")
        return versions

    def _write_dead_letters(self, records: DataFrame, batch: Batch, row: BatchRow, judged: Judged) -> dict[str, int]:
        letters = judged.dead_letters
        if not len(letters):
            return {}
        rejected = _only(records.where(F.col("verdict") == REJECTED), letters, judged.batch.rejected)
        rows = self.dead_letters(rejected, batch.started)
        return {str(DLQ): self._append(rows.coalesce(1), DLQ, batch, row, len(letters))}

    def _append(self, rows: DataFrame, name: TableName, batch: Batch, row: BatchRow, count: int) -> int:
        path, app_id = self.targets.append_of(name, batch)
        version = delta.append_new(rows, path, app_id=app_id, batch_id=batch.number, metadata=row.metadata())
        if version is None:
            # What the table had was left out before, so each of these rows would be lost.
            raise self.targets.lost_rows(name, batch, count)
        return version


def _only(records: DataFrame, wanted: Facts, facts: Facts) -> DataFrame:
    """The records of `wanted`, a part of the `facts` of `records`; the shorter list goes to the executors."""
    name, coordinates = "_coordinate", wanted.coordinates()
    if len(wanted) * 2 <= len(facts):
        return among(records, name, coordinate(), coordinates)
    others = np.setdiff1d(facts.coordinates(), coordinates, assume_unique=True)
    return among(records, name, coordinate(), others, keep=False) if len(others) else records


def _in_files(rows: DataFrame, inserted: Facts) -> DataFrame:
    """Few files; of a large batch the last rows by Kafka time in one of their own.

    A copy that comes in a later batch and is the earlier one replaces a row, and that rewrites the row's file: nearly
    always one of the batch's last rows, since copies follow each other closely.
    """
    files = max(1, -(-len(inserted) // _ROWS_PER_FILE))
    if files == 1:
        return rows.coalesce(1)
    timed = inserted.take(inserted.has_kafka_time())
    if not len(timed):
        return rows.coalesce(files)
    # The same moment with each value of a batch: a literal would be compiled anew.
    is_last = F.coalesce(F.col("_kafka_timestamp") >= instant(kafka_moment(_frontier(timed))), F.lit(True))
    return rows.where(~is_last).coalesce(files).union(rows.where(is_last).coalesce(1))


def _frontier(rows: Facts) -> int:
    """Kafka time (milliseconds) up to which all partitions have been read; 2 to 50 % of the rows come after it."""
    ends = [rows.kafka_ms[rows.partition == partition].max() for partition in np.unique(rows.partition)]
    low, high = np.quantile(rows.kafka_ms, (0.5, 0.98), method="lower")
    return int(np.clip(min(ends), low, high))
