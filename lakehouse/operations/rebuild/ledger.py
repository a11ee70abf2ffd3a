"""Makes the batch ledger say what a rebuild wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse.operations.rebuild.plan import RebuildPlan
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.ledger.voids import EVENTS, void_row
from pipelines.lake.ledger_row import COUNTS, Kind, LedgerRow
from pipelines.lake.settings import Settings
from pipelines.lake.tables import DLQ, GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, SILVER
from pipelines.runtime import delta

_FATES = ("inserted", "replaced", "duplicate", "conflict", "tombstone", "late")


def record_gold(spark: SparkSession, settings: Settings, plan: RebuildPlan, run_id: str, now: datetime) -> None:
    """Note up to which version of Silver Gold stands: `lakehouse checkpoint rebuild gold` goes on from there."""
    row = BatchRow(
        job=plan.layer,
        generation=f"{Kind.REBUILD.prefix}{run_id}",
        batch_id=0,
        offsets={"silver_version": [0, plan.source_version]},
        versions={
            str(table): delta.current_version(spark, table.path(settings)) for table in (GOLD_BY_KEY, GOLD_HOURLY, GOLD_DAILY)
        },
        started_at=now,
    )
    Ledger(settings).record(row)


def correct_ledger(spark: SparkSession, settings: Settings, plan: RebuildPlan, run_id: str, now: datetime) -> int:
    """Make the ledger say what the rebuild says, where it differs: undo Silver's batches and add the rebuild as one."""
    ledger = Ledger(settings)
    batches = ledger.standing(SILVER.layer)
    rebuilt = Ledger(plan.settings(settings))
    counted = _sums(rebuilt.batches(SILVER.layer))
    events, letters = (spark.read.format("delta").load(table.path(settings)).count() for table in (SILVER, DLQ))
    known = _sums(batches)
    # Retention removes closed ones, which stay counted.
    added = max(0, letters - _sums(ledger.batches(SILVER.layer))["dead_lettered"])
    copies = counted["duplicate"] + counted["replaced"]
    if (events, copies, counted["tombstone"], 0) == (
        known["inserted"],
        known["duplicate"] + known["replaced"],
        known["tombstone"],
        added,
    ):
        return _record_stamps(spark, settings, run_id, batches)
    fates = {**{name: counted[name] for name in _FATES}, "inserted": events, "dead_lettered": added}
    accounted = sum(fates[name] for name in ("inserted", "replaced", "duplicate", "tombstone", "dead_lettered"))
    row = BatchRow(
        job=SILVER.layer,
        generation=f"{Kind.REBUILD.prefix}{run_id}",
        batch_id=0,
        offsets={str(p): [first, end] for p, (first, end) in rebuilt.positions(SILVER.layer).items()},
        rows_read=counted["rows_read"],
        already_present=counted["rows_read"] - accounted,
        versions={str(SILVER): delta.current_version(spark, SILVER.path(settings))},
        started_at=now,
    )
    row = replace(row, **fates)  # type: ignore[arg-type]  # counts by their names
    generations = sorted({batch.generation for batch in batches})
    voids = [void_row([batch for batch in batches if batch.generation == name], EVENTS) for name in generations]
    ledger.append([*voids, row.committed()])
    return len(voids) + 1


def _record_stamps(spark: SparkSession, settings: Settings, run_id: str, batches: Sequence[LedgerRow]) -> int:
    """Note that the rebuild wrote rows that the ledger counts already: to its readers rows after its last batch are not there.

    Taken from the table, not from this run: the one that wrote them may have died.
    """
    if not batches:
        return 0
    path, last = SILVER.path(settings), max(batch.started_at for batch in batches)
    later = spark.read.format("delta").load(path).where(F.col("_processed_at") > F.lit(last))
    newest = later.agg(F.max("_processed_at")).collect()[0][0]
    if newest is None:
        return 0
    row = BatchRow(
        job=SILVER.layer,
        generation=f"{Kind.REBUILD.prefix}{run_id}",
        batch_id=0,
        offsets={},
        versions={str(SILVER): delta.current_version(spark, path)},
        started_at=newest.replace(tzinfo=UTC),
    )
    Ledger(settings).record(row)
    return 1


def _sums(rows: Sequence[LedgerRow]) -> dict[str, int]:
    return {name: sum(int(getattr(row, name)) for row in rows) for name in COUNTS}
