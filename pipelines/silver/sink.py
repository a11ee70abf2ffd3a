"""Silver's sink: each record of a Bronze batch gets its fate."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.lake import failpoints
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.errors import DataLossError
from pipelines.lake.event_schema import EventSchemas
from pipelines.lake.lease.layers import Lease
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.logging import Log
from pipelines.lake.settings import SilverSettings
from pipelines.lake.tables import BRONZE, DLQ, SILVER, TableName
from pipelines.runtime import delta
from pipelines.runtime.kept_rows import kept
from pipelines.runtime.restores import last_written, refuse_restored_after
from pipelines.runtime.session import instant
from pipelines.silver.attempts import PART, Attempt, find_attempts, settle, with_written
from pipelines.silver.breaker_gate import BreakerGate
from pipelines.silver.dead_letters import OPEN, close_replayed
from pipelines.silver.fates import BatchSurvivors, Coverage, Facts, Fates, Flags, Longs, decide, has_id, split_batch
from pipelines.silver.lookup import DeadLetterLookup, SilverLookup, among, kafka_moment
from pipelines.silver.poison import NO_POISON, PoisonSearch
from pipelines.silver.replacing import replace_rows
from pipelines.silver.rules import POISON_RULE, rejecting_rules, warning_rules
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

    `rejected_before`: which rejected records are dead letters, or passed under other rules and are in Silver; `reopened`:
    records that pass now and are open dead letters; `discarded`: how many pass now and were discarded.
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
        """The rejected records that have no fate yet."""
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
    one that was discarded stays out, and one that is rejected now but is a row of Silver, or a copy, stays that. Rows that
    Delta would skip, since it has the batch's transaction, are an error. One writer at a time: a batch holds Silver's lease.
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
    seen: dict[str, int] = field(default_factory=dict)
    """Versions of the written tables, by name, up to which it is known that nobody restored them; empty: not looked at."""
    _version: int | None = field(default=None)
    """Version of Silver that the lookup's memory stands for."""
    _covered: Coverage | None = field(default=None)
    """What other runs gave a fate; read when the first batch comes, and when somebody else wrote."""
    _tried: Coverage = field(default_factory=lambda: Coverage({}))
    """The same, and what batches read that died before they said so."""
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
            if self.search is not None and not self._has_begun:
                self._poison = self._known_poison(batch, batch_id)
            self._process(batch, batch_id, started)
        except Exception as error:
            if self.search is None:
                raise
            self._poison = self.search.find(batch, batch_id, error, self._everything)
            # The first try may have written something: the tables are looked at anew.
            self._forget()
            self._has_begun = False
            self._process(batch, batch_id, started)
        finally:
            self._poison = NO_POISON

    def _known_poison(self, batch: DataFrame, batch_id: int) -> Longs:
        """Poison that this very batch set aside before it died: judged as sound, it would be more rows than were written."""
        spark = batch.sparkSession
        if delta.transaction_version(spark, self.dlq, self.checkpoint.app_id("dlq-poison")) != batch_id:
            return NO_POISON
        letters = spark.read.format("delta").load(self.dlq).where(F.col("_status") == OPEN)
        letters = letters.where(F.array_contains("_quality_flags", POISON_RULE))
        found = letters.select(coordinate().alias("at")).toArrow().column("at").to_numpy()
        mine = among(batch, "at", coordinate(), found).select(coordinate().alias("at"))
        return np.sort(mine.toArrow().column("at").to_numpy())

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
        own, is_first = (self.checkpoint.generation, batch_id), not self._has_begun
        attempted, recorded = None, False
        if is_first:
            self._refuse_old_copy(spark, batch_id)
        if self._covered is None:
            attempts = find_attempts(JOB, self.silver, self.dlq)
            settle(self.ledger, JOB, attempts, own)
            if is_first:
                attempted = attempts.get(own)
                recorded = own in self.ledger.known(JOB)
            self._read_coverage(attempts)
        self._has_begun = True
        judged = self._judge(spark, facts)
        if is_first:
            self._refuse_lost_rows(spark, batch_id, judged)
        if attempted is None and self.breaker is not None:
            self.breaker.admit(spark, batch_id, judged.facts, judged.dead_letters)
        row = self._ledger_row(batch_id, started, judged)
        versions = self._write(records, row, judged)
        if attempted is not None and (PART + row.generation, batch_id) not in self.ledger.known(JOB):
            # The first try knew nothing of the poison: what it left counts, but not how it judged the rest.
            row = with_written(row, attempted.part()) if len(self._poison) else attempted.row
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

    def _read_coverage(self, attempts: Mapping[tuple[str, int], Attempt]) -> None:
        covered = self.ledger.covered(JOB)
        tried = {partition: list(ranges) for partition, ranges in covered.items()}
        for attempt in attempts.values():
            for partition, (start, end) in attempt.row.offsets.items():
                tried.setdefault(int(partition), []).append((start, end))
        self._covered, self._tried = Coverage(covered), Coverage(tried)

    def _refuse_restored(self, spark: SparkSession) -> None:
        """Stop where a RESTORE beside this run took rows or dead letters back: it would never read their records again."""
        for name, path in ((SILVER, self.silver), (DLQ, self.dlq)):
            version, seen = delta.current_version(spark, path), self.seen.get(str(name))
            if seen is not None and version != seen:
                refuse_restored_after(seen, self.checkpoint, str(name), path)
            self.seen[str(name)] = version

    def _judge(self, spark: SparkSession, facts: Facts) -> Judged:
        self._refuse_restored(spark)
        version = self.seen[str(SILVER)]
        if version != self._version:
            # The first batch, or somebody else wrote: the memory of recent keys is read anew.
            oldest = facts.oldest_kafka_ms()
            self.lookup.load(spark, int(time.time() * 1000) if oldest is None else oldest)
            self._version = version
        valid, rejected = (facts.take(facts.verdict == verdict) for verdict in (VALID, REJECTED))
        letters = self.dead_letters.states(spark, valid)
        discarded = int(np.count_nonzero(letters.discarded))
        survivors = split_batch(valid.take(~letters.discarded) if discarded else valid)
        fates = decide(survivors.first, self.lookup.existing(spark, survivors.first), corrects=self.corrects)
        known = self.dead_letters.is_known(spark, rejected)
        known |= self._passed_before(spark, rejected, known)
        return Judged(facts, survivors, fates, rejected, known, valid.take(letters.open), discarded)

    def _passed_before(self, spark: SparkSession, rejected: Facts, letters: Flags) -> Flags:
        """Which rejected records passed under other rules, in a range that is read again: rows of Silver, or copies.

        A copy leaves no row behind. It is known by its event's row, unless a dead letter may have been taken back there.
        """
        passed = ~letters & self._tried.has(rejected)
        if passed.any():
            again, gone = rejected.take(passed), Coverage(self.ledger.letters_taken_back(JOB))
            counted = self._coverage.has(again) & ~gone.has(again)
            is_copy = counted & has_id(again, self.lookup.existing(spark, again))
            passed[passed] = is_copy | self.lookup.has_rows(spark, again)
        return passed

    @property
    def _coverage(self) -> Coverage:
        return self._covered or Coverage({})

    def _ledger_row(self, batch_id: int, started: datetime, judged: Judged) -> BatchRow:
        fates, in_batch, covered = judged.fates, judged.survivors.copies, self._coverage
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
            late=sum(int(np.count_nonzero(rows.delayed_more(late_us))) for rows in (fates.insert, fates.replace)),
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
        if (oldest := judged.facts.oldest_kafka_ms()) is not None:
            self.lookup.forget(oldest)
        own = {
            str(SILVER): bool(len(judged.fates.rewritten)) + bool(len(judged.fates.insert)),
            str(DLQ): bool(len(judged.dead_letters)),
        }
        for name, version in versions.items():
            # Otherwise somebody wrote in between without the lease, and the next batch looks at it anew.
            if version - self.seen[name] <= own[name]:
                self.seen[name] = version
                if name == str(SILVER):
                    self._version = version
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
            versions[str(SILVER)] = self._append(_in_files(rows, fates.insert), SILVER, row, len(fates.insert))
        failpoints.reach("silver.after_append")
        return versions

    def _write_dead_letters(self, records: DataFrame, row: BatchRow, judged: Judged) -> dict[str, int]:
        letters = judged.dead_letters
        if not len(letters):
            return {}
        rejected = _only(records.where(F.col("verdict") == REJECTED), letters, judged.rejected)
        rows = build_dead_letters(rejected, rejecting_rules(), dead_lettered_at=row.started_at)
        return {str(DLQ): self._append(rows.coalesce(1), DLQ, row, len(letters))}

    def _silver_rows(self, records: DataFrame, processed_at: datetime) -> DataFrame:
        return build_silver_rows(
            records,
            warning_rules(self.settings),
            silver_table(self.schemas).column_names,
            late_after_seconds=self.settings.late_after_seconds,
            processed_at=processed_at,
        )

    def _append(self, frame: DataFrame, name: TableName, row: BatchRow, count: int) -> int:
        path, app_id = self._target(name)
        version = delta.append_new(frame, path, app_id=app_id, batch_id=row.batch_id, metadata=row.metadata())
        if version is None:
            # What the table had was left out before, so each of these rows would be lost.
            raise self._lost_rows(name, row.batch_id, count)
        return version

    def _target(self, name: TableName) -> tuple[str, str]:
        """Path of the table and the app id of this batch's append to it."""
        if name == SILVER:
            return self.silver, self.checkpoint.app_id()
        # Another transaction where the batch is tried again without its poison: the first try's would keep it out.
        return self.dlq, self.checkpoint.app_id("dlq-poison" if len(self._poison) else "dlq")

    def _refuse_lost_rows(self, spark: SparkSession, batch_id: int, judged: Judged) -> None:
        """Stop, before anything is written, where an append has rows that Delta would skip: the batch's was committed before."""
        for name, rows in ((SILVER, judged.fates.insert), (DLQ, judged.dead_letters)):
            if len(rows):
                done = delta.transaction_version(spark, *self._target(name))
                if done is not None and done >= batch_id:
                    raise self._lost_rows(name, batch_id, len(rows))

    def _lost_rows(self, name: TableName, batch_id: int, count: int) -> DataLossError:
        return DataLossError(
            f"Batch {batch_id} of generation {self.checkpoint.generation} was written to {name} before, yet it has "
            f"{count} rows more now: the schema files or settings changed, the table was restored, or the checkpoint is an old "
            "copy; put files and settings back until the batch is complete, or start with a new checkpoint path."
        )

    def _refuse_old_copy(self, spark: SparkSession, batch_id: int) -> None:
        """Stop where later batches of the checkpoint were written: its batches have other records now than their numbers say."""
        tables = {"": self.silver, "dlq": self.dlq, "dlq-poison": self.dlq}
        last = last_written(spark, self.checkpoint, self.ledger, tables)
        if last > batch_id:
            msg = (
                f"Batch {batch_id} of generation {self.checkpoint.generation} comes after batch {last} was written, so the "
                f"checkpoint {self.checkpoint.path} is an old copy, and going on would lose records; start with a new "
                "checkpoint path (playbooks/checkpoint-lost.md)."
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
