"""Read what the tables and the ledger have of a batch's records: the facts that the judge decides by."""

from __future__ import annotations

import time

import numpy as np
from pyspark.sql import SparkSession

from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.tables import SILVER
from pipelines.silver.batch import JOB
from pipelines.silver.facts import VALID, Coverage, Facts
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
    letters = progress.dead_letters.states(spark, facts.take(facts.verdict == VALID))
    batch = sort_batch(facts, letters)
    existing = progress.lookup.existing(spark, batch.survivors.first)
    return Known(batch, existing, _read_rejected(spark, batch.rejected, history, progress, ledger))


def _read_rejected(spark: SparkSession, rejected: Facts, history: History, progress: Progress, ledger: Ledger) -> KnownRejected:
    letters, rows = progress.dead_letters.is_known(spark, rejected), np.zeros(len(rejected), dtype=bool)
    passed = may_have_passed(rejected, letters, history)
    if not passed.any():
        return KnownRejected(letters, rows, rejected.take(passed), Coverage({}))
    again, taken_back = rejected.take(passed), Coverage(ledger.letters_taken_back(JOB))
    existing = progress.lookup.existing(spark, again)
    rows[passed] = progress.lookup.has_rows(spark, again)
    return KnownRejected(letters, rows, existing, taken_back)
