"""Finding the records that make a Silver batch fail, by bisection over their coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.classify import classify as classify_error
from pipelines.lake.checkpoint.failures import BatchFailures
from pipelines.lake.errors import BreakerOpenError, PoisonBatchError
from pipelines.lake.logging import Log
from pipelines.lake.playbooks import RECORDS, path_of
from pipelines.lake.settings import RetrySettings
from pipelines.runtime import delta
from pipelines.silver.dead_letters.dead_letters import OPEN
from pipelines.silver.dedup.lookup import among
from pipelines.silver.facts import REJECTED, VALID, Longs
from pipelines.silver.rules import POISON_RULE
from pipelines.silver.transforms import build_facts, classify, coordinate, parse_events
from pipelines.silver.writer import SilverWriter

NO_POISON: Longs = np.zeros(0, dtype=np.int64)
_LOG = Log("silver")

Fails = Callable[[Longs], bool]
"""Whether processing the records at these coordinates fails."""


class NotPoisonError(Exception):
    """Raised where a batch fails, but not because of single records."""


def find_poison(coordinates: Longs, fails: Fails, most: int) -> Longs:
    """The records that fail each alone: about log2(n) probes for each, at most `most` of them.

    `coordinates`: sorted; `fails` is asked for runs of neighbours. Raises NotPoisonError where nothing at all fails as
    well, where all together do not fail, or where a run fails but none of its records alone; PoisonBatchError where there are
    more than `most`.
    """
    if fails(coordinates[:0]) or not fails(coordinates):
        raise NotPoisonError
    found: list[int] = []
    rest = coordinates
    while True:
        if len(found) == most:
            msg = (
                f"More than {most} records of the batch fail when they are read (`retries.max_poison_records`), so the cause is "
                f"hardly in them; the offsets did not advance: see {path_of(RECORDS)}."
            )
            raise PoisonBatchError(msg)
        last = _shortest_failing_run(rest, fails)
        if not fails(rest[last : last + 1]):
            raise NotPoisonError
        found.append(int(rest[last]))
        rest = rest[last + 1 :]
        if not len(rest) or not fails(rest):
            return np.array(found, dtype=np.int64)


def _shortest_failing_run(coordinates: Longs, fails: Fails) -> int:
    """Position of the record that makes the run from the first one fail; the whole of `coordinates` is known to."""
    low, high = 0, len(coordinates) - 1
    while low < high:
        middle = (low + high) // 2
        if fails(coordinates[: middle + 1]):
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(frozen=True)
class PoisonSearch:
    """Looks for poison in a batch that failed, where that may help: the cause is in the data, or the batch failed too often."""

    failures: BatchFailures
    settings: RetrySettings

    def find(self, batch: DataFrame, batch_id: int, error: Exception, process: Callable[[DataFrame], DataFrame]) -> Longs:
        """Coordinates of the poison records.

        `process` gives all columns that the sink computes of records. Raises `error` itself where it is not the records'.
        """
        if isinstance(error, BreakerOpenError) or not self._is_due(batch_id, error):
            raise error
        coordinates = np.sort(batch.select(coordinate().alias("at")).toArrow().column("at").to_numpy())
        probes = _Probes(batch, process)
        _LOG.warning(
            "batch failed, looking for the record", batch=batch_id, rows=len(coordinates), cause=classify_error(error).name
        )
        try:
            poison = find_poison(coordinates, probes, self.settings.max_poison_records)
        except NotPoisonError:
            _LOG.warning("no single record makes the batch fail", batch=batch_id, probes=probes.count)
            raise error from None
        for at in poison.tolist():
            _LOG.warning("poison record", batch=batch_id, partition=at >> 48, offset=at & (1 << 48) - 1, probes=probes.count)
        return poison

    def _is_due(self, batch_id: int, error: Exception) -> bool:
        cause = classify_error(error)
        if cause.kind is Kind.DATA:
            return True
        return cause.suspects_data and self.failures.count(batch_id) + 1 >= self.settings.attempts


def known_poison(batch: DataFrame, batch_id: int, dlq: str, app_id: str) -> Longs:
    """Poison that this very batch set aside before it died: judged as sound, it would be more rows than were written.

    `app_id`: of the append of dead letters once poison was found, to the table at `dlq`.
    """
    spark = batch.sparkSession
    if delta.transaction_version(spark, dlq, app_id) != batch_id:
        return NO_POISON
    letters = spark.read.format("delta").load(dlq).where(F.col("_status") == OPEN)
    letters = letters.where(F.array_contains("_quality_flags", POISON_RULE))
    found = letters.select(coordinate().alias("at")).toArrow().column("at").to_numpy()
    mine = among(batch, "at", coordinate(), found).select(coordinate().alias("at"))
    return np.sort(mine.toArrow().column("at").to_numpy())


def all_columns(batch: DataFrame, writer: SilverWriter, fields: Sequence[str]) -> DataFrame:
    """All that is ever computed of records, as hashes: what fails in the sink fails here. Nothing is written."""
    records, now = classify(parse_events(batch), writer.rules.rejecting), datetime.now(UTC)
    parts = (
        build_facts(records, fields),
        writer.silver_rows(records.where(F.col("verdict") == VALID), now),
        writer.dead_letters(records.where(F.col("verdict") == REJECTED), now),
    )
    return reduce(DataFrame.union, (part.select(F.xxhash64(*part.columns)) for part in parts))


@dataclass
class _Probes:
    """Processes runs of a batch's records without writing anything."""

    batch: DataFrame
    process: Callable[[DataFrame], DataFrame]
    count: int = 0

    def __call__(self, run: Longs) -> bool:
        self.count += 1
        # The coordinates are sorted, so a run is a range: no list goes to the executors.
        inside = coordinate().between(int(run[0]), int(run[-1])) if len(run) else F.lit(False)
        try:
            self.process(self.batch.where(inside)).write.format("noop").mode("overwrite").save()
        except Exception as error:
            # An outage in the middle of the search must not make a dead letter of an innocent record.
            if not classify_error(error).suspects_data:
                raise
            return True
        return False
