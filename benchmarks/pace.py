"""How a Gold batch of one size takes longer where the day holds thirty times the rows.

Each size has a lake of its own: Silver is filled with a day of rows, which Gold takes over. Then, while Gold runs, Silver gets
one commit after the other: rows of the day's last hour, and 1 % of any hour of it. The first two are left out: they load classes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from benchmarks.measure import Measured
from benchmarks.workload import Run, ledger_rows, new_run
from pipelines.lake.delta_log.opening import has_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import TransientError
from pipelines.lake.tables import LEDGER, SILVER

FACTOR = 30
_LATE = 0.01
_LEFT_OUT = 2
_BATCH_SECONDS, _FIRST_SECONDS = 300.0, 900.0


@dataclass(frozen=True)
class PacePlan:
    """How large: rows of the smaller day, changed rows of a batch, batches that are measured."""

    rows: int = 100_000
    batch: int = 2_000
    batches: int = 7


@dataclass(frozen=True)
class PaceResult:
    """Milliseconds of the measured batches, where the day has N rows and where it has thirty times as many."""

    plan: PacePlan
    small_ms: list[int]
    large_ms: list[int]

    @property
    def ratio(self) -> float:
        """Median with thirty times the rows by median with N."""
        return median(self.large_ms) / median(self.small_ms)


def measure_pace(work: Path, plan: PacePlan, say: Callable[[str], None]) -> PaceResult:
    """Measure both days, one after the other."""
    found = []
    for name, rows in (("small", plan.rows), ("large", plan.rows * FACTOR)):
        say(f"pace: a day of {rows:,} rows, batches of {plan.batch:,} changed rows")
        run = new_run(work, f"pace-{name}", "bench-pace")
        found.append(_measure(run, plan, rows))
        run.clear()
    return PaceResult(plan, *found)


def _measure(run: Run, plan: PacePlan, rows: int) -> list[int]:
    end = datetime.combine(datetime.now(UTC).date(), datetime.min.time(), UTC) - timedelta(seconds=2)
    fill = [sys.executable, "-m", "benchmarks.history", "--config", str(run.config), "--end", end.isoformat()]
    with Measured("history", [*fill, "--rows", str(rows), "--days", "0.999"], run.folder) as process:
        process.wait()
    silver = SILVER.path(run.settings)
    gold = [sys.executable, "-m", "pipelines.gold.gold_aggregation", "--config", str(run.config), "--trigger", "1 second"]
    durations = []
    with Measured("gold", gold, run.folder) as process:
        _await_version(run, process, DeltaTable(silver).version(), _FIRST_SECONDS)
        for changed in _changes(silver, plan, end):
            write_deltalake(silver, changed, mode="append")
            durations.append(_await_version(run, process, DeltaTable(silver).version(), _BATCH_SECONDS))
        process.stop()
    return durations[_LEFT_OUT:]


def _changes(silver: str, plan: PacePlan, end: datetime) -> Iterator[pa.Table]:
    """Rows that Silver has, once more: Gold does not ask for their ids."""
    table = rows_dataset(DeltaTable(silver))
    recent = table.to_table(filter=pc.field("event_timestamp") >= pa.scalar(end - timedelta(hours=1)))
    number, late = plan.batches + _LEFT_OUT, int(plan.batch * _LATE)
    chosen = np.random.default_rng(7)
    of_any_hour = table.take(np.sort(chosen.choice(table.count_rows(), number * late, replace=False)))
    order = chosen.permutation(of_any_hour.num_rows)
    for n in range(number):
        some = recent.take(chosen.choice(recent.num_rows, plan.batch - late))
        yield pa.concat_tables([some, of_any_hour.take(order[n * late : (n + 1) * late])])


def _await_version(run: Run, process: Measured, version: int, seconds: float) -> int:
    """Wait until Gold has taken `version` of Silver; milliseconds of the batch that did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not process.has_ended():
        if has_table(LEDGER.path(run.settings)):
            columns = "CAST(json_extract(offsets, '$.silver_version[1]') AS BIGINT) AS upto, duration_ms"
            found = [row for row in ledger_rows(run.settings, columns, "gold") if row[0] >= version]
            if found:
                return int(found[0][1])
        time.sleep(0.2)
    if process.has_ended():
        process.wait()
    msg = f"Gold did not take version {version} of Silver within {seconds:g} s; see {process.log}."
    raise TransientError(msg)
