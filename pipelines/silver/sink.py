"""Silver's sink: each record of a Bronze batch gets its fate."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.common import delta, failpoints
from pipelines.common.checkpoints import Checkpoint
from pipelines.common.errors import DataLossError
from pipelines.common.event_schema import EventSchemas
from pipelines.common.kept_rows import kept
from pipelines.common.leases import Lease
from pipelines.common.ledger import BatchRow, Ledger
from pipelines.common.logging import Log
from pipelines.common.restores import refuse_restored_after
from pipelines.common.session import instant
from pipelines.common.settings import SilverSettings
from pipelines.common.tables import BRONZE, DLQ, SILVER
from pipelines.silver.attempts import PART, find_attempts, settle
from pipelines.silver.breaker_gate import BreakerGate
from pipelines.silver.dead_letters import close_replayed
from pipelines.silver.fates import BatchSurvivors, Coverage, Facts, Fates, Flags, Longs, decide, split_batch
from pipelines.silver.lookup import DeadLetterLookup, SilverLookup, among
from pipelines.silver.poison import NO_POISON, PoisonSearch
from pipelines.silver.replacing import replace_rows
from pipelines.silver.rules import rejecting_rules, warning_rules
from pipelines.silver.schema import silver_table
from pipelines.silver.transforms import (
    REJECTED,
    TOMBSTONE,
    VALID,
    build_dead_letters,
    build_facts,
    build_silver_rows,
    classify,
    coordinate,
    parse_events,
)

JOB = "silver"
_LOG = Log(JOB)
_ROWS_PER_FILE = 250_000


@dataclass(frozen=True)
class Judged:
    """A batch's records and what was decided about them.

    `reopened`: records that pass now and are open dead letters; `discarded`: how many pass now and were discarded.
    """

    facts: Facts
    survivors: BatchSurvivors
    fates: Fates
    rejected: Facts
    rejected_before: Flags
    reopened: Facts
    discarded: int

    @property
    def dead_letters(self) -> Facts:
        """The rejected records that the dead-letter table does not have yet."""
        return self.rejected.take(~self.rejected_before)

    def had_fate(self, copies: Facts, covered: Coverage) -> Flags:
        """Which copies were counted by an earlier run; an open dead letter was not counted as a copy."""
        return covered.has(copies) & ~np.isin(copies.coordinates(), self.reopened.coordinates())


@dataclass
class SilverSink:
    """Gives each record of a Bronze batch its fate: classify narrowly, decide in the driver, write what is new.

    Guarantee: one row for an event_id in Silver and one for a coordinate among the dead letters, by looking at the
    tables; a batch that runs again after any of its writes completes the rest, and its ledger row keeps the first
    attempt's counts. A fresh checkpoint finds what the tables have. A record that passes now and is an open dead letter
    (a replay, or a range read again with a new schema file) gets its fate in Silver, and then its dead letter is closed;
    one that was discarded stays out. One writer at a time: a batch holds Silver's lease.
    """

    silver: str
    dlq: str
    checkpoint: Checkpoint
    ledger: Ledger
    settings: SilverSettings
    schemas: EventSchemas
    lookup: SilverLookup
    dead_letters: DeadLetterLookup
    lease: Lease
    corrects: bool = False
    """Whether a row whose record reads differently now is corrected."""
    source_version: Callable[[int], int] | None = None
    """Bronze version that a batch of the stream has come to; a replay says nothing about it."""
    breaker: BreakerGate | None = None
    search: PoisonSearch | None = None
    _version: int | None = field(default=None)
    """Version of Silver that the lookup's memory stands for."""
    _seen: int | None = field(default=None)
    """Version of Silver that the last batch began with: until then nobody had restored it."""
    _covered: Coverage | None = field(default=None)
    """What other runs gave a fate; read when the first batch comes, and when somebody else wrote."""
    _has_begun: bool = field(default=False)
    _poison: Longs = field(default_factory=lambda: NO_POISON)
    """Coordinates of the running batch's records whose processing fails."""

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch and its ledger row; records that make it fail are found and become dead letters.

        Raises BreakerOpenError where the breaker holds the batch back, PoisonBatchError where too many records fail.
        """
        started = datetime.now(UTC)
        if self.breaker is not None:
            self.breaker.enter(batch_id)
        try:
            self._process(batch, batch_id, started)
        except Exception as error:
            if self.search is None:
                raise
            self._poison = self.search.find(batch, batch_id, error, self._everything)
            # The first try may have written something: the tables are looked at anew.
            self._forget()
            self._has_begun = False
            try:
                self._process(batch, batch_id, started)
            finally:
                self._poison = NO_POISON

    def _process(self, batch: DataFrame, batch_id: int, started: datetime) -> None:
        # Parsed once: to judge the records, to write the events and to write the dead letters.
        with (
            self.lease.hold() as others_wrote,
            kept(classify(parse_events(batch, self._poison.tolist()), rejecting_rules())) as records,
        ):
            if others_wrote:
                self._forget()
            self._write_batch(records, batch_id, started)

    def _forget(self) -> None:
        self._version = None
        self._covered = None
        self.dead_letters.forget()

    def _everything(self, records: DataFrame) -> DataFrame:
        """All that is ever computed of records, as hashes: what fails in the sink fails here."""
        parsed, now = classify(parse_events(records), rejecting_rules()), datetime.now(UTC)
        parts = (
            build_facts(parsed, list(self.schemas.fields)),
            self._silver_rows(parsed.where(F.col("verdict") == VALID), now),
            build_dead_letters(parsed.where(F.col("verdict") == REJECTED), rejecting_rules(), dead_lettered_at=now),
        )
        return reduce(DataFrame.union, (part.select(F.xxhash64(*part.columns)) for part in parts))

    def _write_batch(self, records: DataFrame, batch_id: int, started: datetime) -> None:
        spark = records.sparkSession
        facts = Facts.from_arrow(build_facts(records, list(self.schemas.fields)).toArrow())
        if not len(facts):
            return
        attempted, recorded = None, False
        if self._covered is None:
            own, attempts = (self.checkpoint.generation, batch_id), find_attempts(JOB, self.silver, self.dlq)
            settle(self.ledger, JOB, attempts, own)
            if not self._has_begun:
                attempted = attempts.get(own)
                recorded = own in self.ledger.known(JOB)
            self._covered = Coverage(self.ledger.covered(JOB))
        self._has_begun = True
        judged = self._judge(spark, facts)
        if attempted is not None:
            self._refuse_lost_rows(spark, batch_id, judged)
        elif self.breaker is not None:
            self.breaker.admit(spark, batch_id, judged.facts, judged.dead_letters)
        row = self._ledger_row(batch_id, started, judged, self._covered)
        versions = self._write(records, row, judged)
        if attempted is not None and (PART + row.generation, batch_id) not in self.ledger.known(JOB):
            row = attempted.row
        if not recorded:
            if self.source_version is not None:
                versions |= {str(BRONZE): self.source_version(batch_id)}
            self.ledger.record(row.with_versions(versions))
        failpoints.reach("silver.after_ledger")
        if len(judged.reopened):
            # Last: a batch that died before it finds the same letters open, and counts them as it did.
            close_replayed(spark, self.dlq, judged.reopened.coordinates(), self.checkpoint.generation, started)
        _LOG.info(
            "batch written",
            batch=batch_id,
            rows=row.rows_read,
            inserted=row.inserted,
            duplicate=row.duplicate,
            dead_lettered=row.dead_lettered,
            **({"corrected": len(judged.fates.corrected)} if judged.fates.corrected is not None else {}),
        )

    def _judge(self, spark: SparkSession, facts: Facts) -> Judged:
        version = delta.current_version(spark, self.silver)
        if version != self._version:
            if self._seen is not None:
                # The stream would never read again what a RESTORE beside it takes back.
                refuse_restored_after(self._seen, self.checkpoint, str(SILVER), self.silver)
            # The first batch, or somebody else wrote: the memory of recent keys is read anew.
            self.lookup.load(spark, int(facts.kafka_us.min()))
            self._version = version
        self._seen = version
        valid, rejected = (facts.take(facts.verdict == verdict) for verdict in (VALID, REJECTED))
        letters = self.dead_letters.states(spark, valid)
        discarded = int(np.count_nonzero(letters.discarded))
        survivors = split_batch(valid.take(~letters.discarded) if discarded else valid)
        fates = decide(survivors.first, self.lookup.existing(spark, survivors.first), corrects=self.corrects)
        known = self.dead_letters.is_known(spark, rejected)
        return Judged(facts, survivors, fates, rejected, known, valid.take(letters.open), discarded)

    def _ledger_row(self, batch_id: int, started: datetime, judged: Judged, covered: Coverage) -> BatchRow:
        fates, in_batch = judged.fates, judged.survivors.copies
        tombstones = judged.facts.take(judged.facts.verdict == TOMBSTONE)
        # A copy or a tombstone leaves no row behind: that it had its fate before, only the ledger knows.
        old_tombstones = covered.has(tombstones)
        old_in_batch, old_in_table = (judged.had_fate(copies.records, covered) for copies in (in_batch, fates.copies))
        copies_in_batch, conflicts_in_batch = in_batch.count(~old_in_batch)
        copies_in_table, conflicts_in_table = fates.copies.count(~old_in_table)
        old = sum(int(np.count_nonzero(flags)) for flags in (judged.rejected_before, old_tombstones, old_in_batch, old_in_table))
        late_us = self.settings.late_after_seconds * 1_000_000
        return BatchRow(
            job=JOB,
            generation=self.checkpoint.generation,
            batch_id=batch_id,
            offsets=judged.facts.offset_ranges(),
            holes=judged.facts.offset_holes(),
            rows_read=len(judged.facts),
            inserted=len(fates.insert),
            replaced=len(fates.replace),
            duplicate=copies_in_batch + copies_in_table,
            conflict=conflicts_in_batch + conflicts_in_table + fates.replace_conflicts,
            already_present=fates.already_present + old + judged.discarded,
            dead_lettered=int(np.count_nonzero(~judged.rejected_before)),
            tombstone=int(np.count_nonzero(~old_tombstones)),
            late=sum(int(np.count_nonzero(rows.kafka_us - rows.event_us > late_us)) for rows in (fates.insert, fates.replace)),
            started_at=started,
        )

    def _write(self, records: DataFrame, row: BatchRow, judged: Judged) -> dict[str, int]:
        failpoints.reach("silver.before_append")
        # Two tables, each write idempotent alone: side by side, the fixed cost of a commit is paid once.
        with ThreadPoolExecutor(max_workers=1) as pool:
            letters = pool.submit(self._write_dead_letters, records, row, judged)
            versions = self._write_events(records, row, judged)
            versions |= letters.result()
        failpoints.reach("silver.after_dead_letters")
        self.dead_letters.remember(judged.dead_letters)
        self.lookup.remember(judged.fates.insert)
        self.lookup.remember(judged.fates.replace)
        self.lookup.forget(int(judged.facts.kafka_us.min()))
        own = bool(len(judged.fates.rewritten)) + bool(len(judged.fates.insert))
        version = versions.get(str(SILVER))
        if version is not None and self._seen is not None and version - self._seen <= own:
            self._version = version
        # Otherwise somebody wrote in between without the lease, and the next batch looks at it anew.
        return versions

    def _write_events(self, records: DataFrame, row: BatchRow, judged: Judged) -> dict[str, int]:
        fates, versions = judged.fates, dict[str, int]()
        valid, known = records.where(F.col("verdict") == VALID), judged.facts.take(judged.facts.verdict == VALID)
        # Before the append: the MERGE has this batch's own files not to look at.
        if len(fates.rewritten):
            rows = self._silver_rows(_only(valid, fates.rewritten, known), row.started_at)
            versions[str(SILVER)] = replace_rows(records.sparkSession, self.silver, rows, fates.replaced, row.metadata())
        failpoints.reach("silver.after_replace")
        if len(fates.insert):
            rows = self._silver_rows(_only(valid, fates.insert, known), row.started_at)
            versions[str(SILVER)] = self._append(_in_files(rows, fates.insert), self.silver, "", row)
        failpoints.reach("silver.after_append")
        return versions

    def _write_dead_letters(self, records: DataFrame, row: BatchRow, judged: Judged) -> dict[str, int]:
        letters = judged.dead_letters
        if not len(letters):
            return {}
        rejected = _only(records.where(F.col("verdict") == REJECTED), letters, judged.rejected)
        rows = build_dead_letters(rejected, rejecting_rules(), dead_lettered_at=row.started_at)
        # Another transaction where the batch is tried again without its poison: the first try's would keep it out.
        part = "dlq-poison" if len(self._poison) else "dlq"
        return {str(DLQ): self._append(rows.coalesce(1), self.dlq, part, row)}

    def _silver_rows(self, records: DataFrame, processed_at: datetime) -> DataFrame:
        return build_silver_rows(
            records,
            warning_rules(self.settings),
            silver_table(self.schemas).column_names,
            late_after_seconds=self.settings.late_after_seconds,
            processed_at=processed_at,
        )

    def _append(self, frame: DataFrame, path: str, part: str, row: BatchRow) -> int:
        return delta.append(
            frame,
            path,
            app_id=self.checkpoint.app_id(part),
            batch_id=row.batch_id,
            metadata=row.metadata(),
        )

    def _refuse_lost_rows(self, spark: SparkSession, batch_id: int, judged: Judged) -> None:
        """Stop where the append has rows that Delta would skip, because the first attempt's append was committed."""
        done = delta.transaction_version(spark, self.silver, self.checkpoint.app_id())
        if len(judged.fates.insert) and done is not None and done >= batch_id:
            msg = (
                f"Batch {batch_id} of generation {self.checkpoint.generation} was written to Silver before, yet it has "
                f"{len(judged.fates.insert)} rows more now: the schema files or settings changed, or Silver was restored; "
                "put them back until the batch is complete, or start with a new checkpoint path."
            )
            raise DataLossError(msg)


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
    # The same moment with each value of a batch: a literal would be compiled anew.
    is_last = F.col("_kafka_timestamp") >= instant(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=_frontier(inserted)))
    return rows.where(~is_last).coalesce(files).union(rows.where(is_last).coalesce(1))


def _frontier(rows: Facts) -> int:
    """Kafka time (microseconds) up to which all partitions have been read; 2 to 50 % of the rows come after it."""
    ends = [rows.kafka_us[rows.partition == partition].max() for partition in np.unique(rows.partition)]
    low, high = np.quantile(rows.kafka_us, (0.5, 0.98), method="lower")
    return int(np.clip(min(ends), low, high))
