"""How a Silver batch of one size takes longer as Silver grows tenfold.

Each table size has a lake of its own: Bronze holds the same few commits (one Kafka partition, so that a commit is one
file and becomes one Silver batch), Silver is filled with rows of the past, then the Silver job works off the commits in
one process. The first batch is left out: it loads classes, and the keys of the dedup window.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Measured
from benchmarks.workload import Run, fill_topic, ledger_rows, new_run
from lakehouse.local.event_plan import ProducePlan
from pipelines.lake.errors import LakehouseError

TOPIC = "bench-growth"
FACTOR = 10
DAYS = 3
"""Days before today over which the smaller table's rows are spread; the larger has as many a day, and so ten times the days."""


@dataclass(frozen=True)
class GrowthPlan:
    """How large: rows in Silver at first, events in a batch, batches that are measured (one more is run)."""

    rows: int = 500_000
    batch: int = 20_000
    batches: int = 9


@dataclass(frozen=True)
class GrowthResult:
    """Milliseconds of the measured batches: Silver with N rows, 10 N as history, 10 N that all came in the last 24 h."""

    plan: GrowthPlan
    small_ms: list[int]
    large_ms: list[int]
    window_ms: list[int]

    @property
    def ratio(self) -> float:
        """Median with ten times the rows by median with N."""
        return statistics.median(self.large_ms) / statistics.median(self.small_ms)

    @property
    def window_ratio(self) -> float:
        """The same where all rows lie in the dedup window."""
        return statistics.median(self.window_ms) / statistics.median(self.small_ms)


def measure_growth(work: Path, plan: GrowthPlan, say: Callable[[str], None]) -> GrowthResult:
    """Measure the three tables, one after the other."""
    source = _fill_bronze(work, plan)
    durations = {}
    for name, rows, days in (
        ("small", plan.rows, float(DAYS)),
        ("large", plan.rows * FACTOR, float(DAYS * FACTOR)),
        ("window", plan.rows * FACTOR, 0.95),
    ):
        say(f"growth: Silver with {rows:,} rows of {days:g} days")
        run = new_run(work, f"growth-{name}", TOPIC, _overrides(plan))
        shutil.copytree(source.settings.lake.root, run.settings.lake.root)
        durations[name] = _measure(run, plan, rows, days)
    return GrowthResult(plan, durations["small"], durations["large"], durations["window"])


def _overrides(plan: GrowthPlan) -> dict[str, object]:
    return {
        "kafka.partitions": 1,
        "bronze.max_offsets_per_trigger": plan.batch,
        # The source takes at least one file a batch: here exactly one Bronze commit.
        "silver.max_bytes_per_trigger": "1b",
    }


def _fill_bronze(work: Path, plan: GrowthPlan) -> Run:
    run = new_run(work, "growth-source", TOPIC, _overrides(plan))
    fill_topic(run, ProducePlan(count=plan.batch * (plan.batches + 1), seed=11))
    command = [
        sys.executable,
        "-m",
        "pipelines.bronze.bronze_ingestion",
        "--config",
        str(run.config),
        "--trigger",
        "available-now",
    ]
    with Measured("bronze", command, run.folder) as process:
        process.wait()
    return run


def _measure(run: Run, plan: GrowthPlan, rows: int, days: float) -> list[int]:
    fill = [sys.executable, "-m", "benchmarks.history", "--config", str(run.config), "--rows", str(rows), "--days", str(days)]
    silver = [
        sys.executable,
        "-m",
        "pipelines.silver.silver_processing",
        "--config",
        str(run.config),
        "--trigger",
        "available-now",
    ]
    for step, command in (("history", fill), ("silver", silver)):
        with Measured(step, command, run.folder) as process:
            process.wait()
    found = [row[1:] for row in sorted(ledger_rows(run.settings, "batch_id, rows_read, duration_ms", "silver"))]
    run.clear()
    sizes = [read for read, _ in found]
    if sizes != [plan.batch] * (plan.batches + 1):
        msg = f"The growth bench expected {plan.batches + 1} Silver batches of {plan.batch} rows, found {sizes}."
        raise LakehouseError(msg)
    return [int(duration) for _, duration in found[1:]]
