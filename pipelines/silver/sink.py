"""Silver's sink: each record of a Bronze batch gets its fate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pyspark.sql import DataFrame

from pipelines.lake import failpoints
from pipelines.lake.lease.layers import Lease
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.logging import Log
from pipelines.lake.settings import SilverSettings
from pipelines.lake.tables import BRONZE
from pipelines.silver.accounting import ledger_row
from pipelines.silver.batch import JOB, POISON_PART, Batch, Targets
from pipelines.silver.breaker.breaker_gate import BreakerGate
from pipelines.silver.facts import Facts
from pipelines.silver.guards import Guards
from pipelines.silver.judge import Judged, judge
from pipelines.silver.poison import NO_POISON, PoisonSearch, all_columns, known_poison
from pipelines.silver.progress import Progress
from pipelines.silver.read_known import read_known
from pipelines.silver.read_records import read_records
from pipelines.silver.recovery import EarlierTry, complete_row, recover
from pipelines.silver.rules import Rules
from pipelines.silver.writer import SilverWriter

_LOG = Log(JOB)


@dataclass(frozen=True)
class SilverSink:
    """Gives each record of a Bronze batch its fate: read, look up, judge, count, write.

    - Guarantee: one row for an event_id in Silver and one for a coordinate among the dead letters, by looking at the tables.
      One writer at a time: a batch holds Silver's lease.
    - Retry: a batch that runs again after any of its writes completes the rest, and its ledger row keeps the first
      attempt's counts.
    - Fresh checkpoint: it finds what the tables have.
    - Replay, or a range read again with a new schema file: a record that passes now and is an open dead letter gets its fate
      in Silver, then its dead letter is closed; one that was discarded stays out; one that is rejected now but is a row of
      Silver, or a copy, keeps that fate.
    - What stops it: rows that Delta would skip, since it has the batch's transaction; a table that was restored; a checkpoint
      that is an old copy.
    """

    targets: Targets
    ledger: Ledger
    lease: Lease
    settings: SilverSettings
    fields: Sequence[str]
    """Fields of the event."""
    rules: Rules
    progress: Progress
    guards: Guards
    writer: SilverWriter
    corrects: bool = False
    """Whether a row whose record reads differently now is corrected."""
    source_version: Callable[[int], int] | None = None
    """Bronze version that a batch of the stream has come to; a replay says nothing about it."""
    breaker: BreakerGate | None = None
    search: PoisonSearch | None = None

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch and its ledger row; records that make it fail are found and become dead letters.

        Raises BreakerOpenError where the breaker holds the batch back, PoisonBatchError where too many records fail.
        """
        started, poison = datetime.now(UTC), NO_POISON
        if self.breaker is not None:
            self.breaker.enter(batch_id)
        try:
            if self.search is not None and not self.progress.has_begun:
                poison = known_poison(batch, batch_id, self.targets.dlq, self.targets.checkpoint.app_id(POISON_PART))
            self._process(batch, Batch(batch_id, started, poison))
        except Exception as error:
            if self.search is None:
                raise
            poison = self.search.find(batch, batch_id, error, partial(all_columns, writer=self.writer, fields=self.fields))
            self.progress.start_over()
            self._process(batch, Batch(batch_id, started, poison))

    def _process(self, frame: DataFrame, batch: Batch) -> None:
        with self.lease.hold() as others_wrote:
            if others_wrote:
                self.progress.forget()
            with read_records(frame, self.fields, self.rules.rejecting, batch.poison) as (records, facts):
                if len(facts):
                    self._write_batch(records, facts, batch)

    def _write_batch(self, records: DataFrame, facts: Facts, batch: Batch) -> None:
        spark, progress = records.sparkSession, self.progress
        if is_first := not progress.has_begun:
            self.guards.refuse_old_copy(spark, batch)
        history, earlier = progress.history, EarlierTry()
        if history is None:
            history, earlier = recover(batch, self.targets, self.ledger, progress)
        progress.seen.update(self.guards.refuse_restored(spark, progress.seen))
        known = read_known(spark, facts, history, progress, self.ledger)
        judged = judge(known, history, corrects=self.corrects)
        if is_first:
            self.guards.refuse_lost_rows(spark, batch, judged)
        if earlier.attempt is None and self.breaker is not None:
            self.breaker.admit(spark, batch.number, facts, judged.dead_letters)
        late = self.settings.late_after_seconds
        row = ledger_row(judged, history.covered, batch, self.targets.checkpoint.generation, late_after_seconds=late)
        versions = self.writer.write(records, batch, row, judged)
        progress.wrote(judged, versions)
        if earlier.attempt is not None:
            row = complete_row(row, earlier.attempt, batch, self.ledger)
        if not earlier.is_recorded:
            self.ledger.record(row.with_versions(self._with_source(versions, batch)))
        failpoints.reach("silver.after_ledger")
        if len(judged.batch.reopened):
            self.writer.close_letters(spark, batch, judged)
        _log(row, judged)

    def _with_source(self, versions: dict[str, int], batch: Batch) -> dict[str, int]:
        return versions if self.source_version is None else versions | {str(BRONZE): self.source_version(batch.number)}


def _log(row: BatchRow, judged: Judged) -> None:
    _LOG.info(
        "batch written",
        batch=row.batch_id,
        rows=row.rows_read,
        inserted=row.inserted,
        duplicate=row.duplicate,
        dead_lettered=row.dead_lettered,
        **({"corrected": len(judged.fates.corrected)} if judged.fates.corrected is not None else {}),
    )
