"""The daily batch, audit included, on a day of a given size with a closed day before it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
from deltalake import DeltaTable

from benchmarks.measure import Measured, Usage
from benchmarks.stages import run_chain
from benchmarks.workload import Run, fill_topic, new_run
from lakehouse.local.event_plan import Mix, ProducePlan
from pipelines.gold.gate.results import QualityStore
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.tables import GOLD_DAILY

TOPIC = "bench-batch"


@dataclass(frozen=True)
class BatchResult:
    """What closing a day cost, from the start of the process to its end; `gate`: what came of its audit."""

    events: int
    usage: Usage
    gate: str
    expectations: int


def measure_batch(work: Path, events: int, log: Callable[[str], None]) -> BatchResult:
    """Produce two days of `events` each, take them through the chain, close the first, and measure the closing of the second."""
    run = new_run(work, "batch", TOPIC)
    first = datetime.combine(datetime.now(UTC).date() - timedelta(days=3), datetime.min.time(), UTC)
    log(f"producing two days of {events:,} events")
    fill_topic(run, ProducePlan(count=2 * events, seed=1, start_time=first, span_seconds=2 * 86_400 - 1, mix=Mix(out_of_order=0)))
    log("the whole chain, then the daily batch of two days")
    run_chain(run, 2 * events)
    _close(run, first.date())
    day = first.date() + timedelta(days=1)
    usage = _close(run, day)
    (audit,) = QualityStore(run.settings).audits(day)
    result = BatchResult(_events(run, day), usage, str(audit.gate), len(audit.results))
    run.clear()
    return result


def _close(run: Run, day: date) -> Usage:
    command = [sys.executable, "-m", "batch.reconcile_gold", "--config", str(run.config), "--date", str(day)]
    with Measured("batch", command, run.folder) as process:
        return process.wait()


def _events(run: Run, day: date) -> int:
    rows = rows_dataset(DeltaTable(GOLD_DAILY.path(run.settings))).to_table(columns=["day", "event_count"])
    return int(pc.sum(rows.filter(pc.equal(rows["day"], day))["event_count"]).as_py())
