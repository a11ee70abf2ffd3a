"""Live: events at a steady rate while Bronze and Silver run in one driver; how long until each is in a committed Silver version.

The end of an event's way is the time at which the log file of the first Silver version that holds it appeared.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Measured, Usage
from benchmarks.workload import Fates, Run, expected_fates, fill_topic, lake_fates, query
from lakehouse.local.event_plan import ProducePlan
from pipelines.lake.errors import TransientError
from pipelines.lake.tables import SILVER

Doubles = npt.NDArray[np.float64]
_CATCH_UP_SECONDS = 120.0
_FIRST_SECONDS = 120.0
_WARM_UP_EVENTS = 2000


_PLACE = pa.schema(
    [("_kafka_timestamp", pa.timestamp("us", tz="UTC")), ("_kafka_partition", pa.int32()), ("_kafka_offset", pa.int64())]
)


@dataclass(frozen=True)
class LivePlan:
    """Events per second, seconds that are measured, and seconds before that, in which the JVM warms up."""

    rate: int = 2000
    seconds: int = 300
    warm_up_seconds: int = 30


@dataclass(frozen=True)
class LiveResult:
    """Seconds from Kafka timestamp to committed Silver row, over the measured events."""

    plan: LivePlan
    events: int
    p50: float
    p95: float
    p99: float
    minutes: list[tuple[float, float]]
    """Median and p95 of each minute."""
    slope: float
    """Seconds by which the median grows each minute, fitted over slices of 10 s."""
    commits: int
    usage: Usage
    found: Fates
    expected: Fates


def measure_live(run: Run, plan: LivePlan, say: Callable[[str], None]) -> LiveResult:
    """Start the streams, wait for their first row, produce at the rate, let them catch up, stop them."""
    fill_topic(run, ProducePlan(count=_WARM_UP_EVENTS, seed=21))
    command = [sys.executable, "-m", "lakehouse", "up", "--config", str(run.config), "--only", "bronze,silver"]
    with Measured("live", command, run.folder) as streams:
        _await(lambda: _silver_versions(run) > 0, streams, _FIRST_SECONDS, "write a first row")
        seconds = plan.warm_up_seconds + plan.seconds
        say(f"live: {plan.rate:,} events/s for {plan.seconds} s after {plan.warm_up_seconds} s of warm-up")
        begun = time.time()
        fill_topic(run, ProducePlan(count=plan.rate * seconds, seed=22, rate=float(plan.rate)))
        expected = expected_fates(run)
        _await(lambda: lake_fates(run.settings).rows >= expected.rows, streams, _CATCH_UP_SECONDS, "catch up")
        usage = streams.stop()
    found, arrivals = lake_fates(run.settings), read_arrivals(Path(SILVER.path(run.settings)))
    measured = arrivals[arrivals[:, 0] >= begun + plan.warm_up_seconds]
    delays = measured[:, 1] - measured[:, 0]
    p50, p95, p99 = (float(value) for value in np.percentile(delays, (50, 95, 99)))
    return LiveResult(
        plan=plan,
        events=len(delays),
        p50=p50,
        p95=p95,
        p99=p99,
        minutes=[(float(np.median(part)), float(np.percentile(part, 95))) for part in _slices(measured, 60.0)],
        slope=slope_per_minute(measured),
        commits=len(np.unique(measured[:, 1])),
        usage=usage,
        found=found,
        expected=expected,
    )


def read_arrivals(table: Path) -> Doubles:
    """For each record that a Silver version added: its Kafka timestamp and the version's commit time, seconds; shape (n, 2).

    A row that a later version rewrote counts with its first version.
    """
    parts = []
    for log in sorted((table / "_delta_log").glob("*.json")):
        committed = log.stat().st_mtime
        actions = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
        for path in (unquote(action["add"]["path"]) for action in actions if "add" in action):
            # Spark and deltalake, who both write to Silver, store a time in two ways.
            rows = pq.read_table(table / path, columns=_PLACE.names).cast(_PLACE)
            parts.append(rows.append_column("committed", pa.array(np.full(rows.num_rows, committed))))
    if not parts:
        return np.empty((0, 2))
    first = query(
        "SELECT epoch_us(any_value(_kafka_timestamp)) / 1e6, min(committed) FROM added GROUP BY _kafka_partition, _kafka_offset",
        added=pa.concat_tables(parts),
    )
    return np.array(first, dtype=np.float64).reshape(-1, 2)


def slope_per_minute(arrivals: Doubles) -> float:
    """Least-squares slope of the median delay over slices of 10 s, in seconds per minute; 0 for fewer than three slices."""
    medians = [float(np.median(part)) for part in _slices(arrivals, 10.0)]
    if len(medians) < 3:
        return 0.0
    return float(np.polyfit(np.arange(len(medians)) / 6.0, medians, 1)[0])


def _slices(arrivals: Doubles, seconds: float) -> list[Doubles]:
    """Delays by slice of the Kafka timestamp; a last slice of less than half the length is left out."""
    if not len(arrivals):
        return []
    since = arrivals[:, 0] - arrivals[:, 0].min()
    number = (since // seconds).astype(np.int64)
    whole = int(number.max()) + (1 if since.max() % seconds >= seconds / 2 else 0)
    delays = arrivals[:, 1] - arrivals[:, 0]
    return [delays[number == each] for each in range(max(whole, 1)) if (number == each).any()]


def _silver_versions(run: Run) -> int:
    """Silver's versions after the one that made the table."""
    return len(list((Path(SILVER.path(run.settings)) / "_delta_log").glob("*.json"))) - 1


def _await(done: Callable[[], bool], streams: Measured, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if streams.has_ended():
            streams.wait()
        if streams.has_ended() or time.monotonic() > deadline:
            msg = f"The streams did not {what} within {seconds:g} s; see {streams.log}."
            raise TransientError(msg)
        time.sleep(0.5)
