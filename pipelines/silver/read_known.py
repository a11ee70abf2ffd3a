"""Read what the tables and the ledger have of a batch's records: the facts that the judge decides by."""

from __future__ import annotations

import time

import numpy as np
from pyspark.sql import SparkSession

from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.tables import SILVER
from pipelines.silver.batch import JOB
from pipelines.silver.dedup.lookup import SilverLookup
from pipelines.silver.facts import REJECTED, VALID, Coverage, Facts, Flags
from pipelines.silver.judge import History, Known, KnownRejected, may_have_passed, sort_batch
from pipelines.silver.progress import Progress


def read_known(spark: SparkSession, facts: Facts, history: History, progress: Progress, ledger: Ledger) -> Known:
    """Sort a batch's records, and look up the rows and dead letters that they may meet.

    The memory of recent keys is read anew where Silver's version is another than this run left: the first batch, or
    somebody else wrote.
    """
    version = progress.seen[str(SILVER)]
    if version != progress.lookup_version:
        oldest = facts.oldest_kafka_ms()
        progress.lookup.load(spark, int(time.time() * 1000) if oldest is None else oldest)
        progress.lookup_version = version
    valid, rejected = (facts.take(facts.verdict == verdict) for verdict in (VALID, REJECTED))
    states, letters = progress.dead_letters.states(spark, valid), progress.dead_letters.is_known(spark, rejected)
    batch = sort_batch(facts, states)
    existing = progress.lookup.existing(spark, batch.survivors.first)
    passed = may_have_passed(rejected, letters, history)
    if passed.any():
        return Known(batch, existing, _read_passed(spark, rejected, letters, passed, lookup=progress.lookup, ledger=ledger))
    none = np.zeros(len(rejected), dtype=bool)
    return Known(batch, existing, KnownRejected(letters, none, rejected.take(none), Coverage({})))


def _read_passed(
    spark: SparkSession, rejected: Facts, letters: Flags, passed: Flags, *, lookup: SilverLookup, ledger: Ledger
) -> KnownRejected:
    """Look up the rejected records that may have `passed` under other rules, in a range that is read again."""
    again, rows = rejected.take(passed), np.zeros(len(rejected), dtype=bool)
    taken_back, existing = Coverage(ledger.letters_taken_back(JOB)), lookup.existing(spark, again)
    rows[passed] = lookup.has_rows(spark, again)
    return KnownRejected(letters, rows, existing, taken_back)
