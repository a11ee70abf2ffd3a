"""What the bench found, and which of its targets were reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.batch import BatchResult
from benchmarks.consumer import ConsumerRate
from benchmarks.growth import DAYS, FACTOR, GrowthResult
from benchmarks.live import LiveResult
from benchmarks.pace import PaceResult
from benchmarks.stages import Rate
from benchmarks.workload import Fates

CHAIN_TO_PEER, BRONZE_TO_CONSUMER, GROWTH, LIVE_P95_SECONDS, LIVE_SLOPE, HEAP_MIB = 0.6, 0.5, 1.2, 5.0, 0.1, 4096
PACE = 1.15


@dataclass
class Results:
    """Results by part; what was not measured is empty."""

    events: int = 0
    produced_per_second: float = 0.0
    value_bytes: float = 0.0
    expected: Fates | None = None
    consumer: ConsumerRate | None = None
    tuned_consumer: ConsumerRate | None = None
    rates: dict[str, Rate] = field(default_factory=dict)
    """Of `peer`, `bronze`, `silver`, `gold`, `chain`."""
    peer_steps: dict[str, float] = field(default_factory=dict)
    growth: GrowthResult | None = None
    pace: PaceResult | None = None
    batch: BatchResult | None = None
    live: LiveResult | None = None


@dataclass(frozen=True)
class Target:
    """A measure against its target; `met` is None where it stands for information."""

    name: str
    found: str
    target: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """The verdict in a word."""
        return {True: "met", False: "missed", None: ""}[self.met]


def targets(results: Results) -> Iterator[Target]:
    """Yield the targets that the measured parts allow to judge."""
    rates, consumer = results.rates, results.consumer
    if "chain" in rates and "peer" in rates:
        yield _at_least("Chain in one driver / peer", rates["chain"].per_second / rates["peer"].per_second, CHAIN_TO_PEER)
        yield _info("The same per CPU-second", rates["chain"].per_cpu_second / rates["peer"].per_cpu_second)
    if "bronze" in rates and consumer is not None:
        limit = consumer.records / consumer.seconds
        yield _at_least("Bronze, cold / bare consumer", rates["bronze"].per_second / limit, BRONZE_TO_CONSUMER)
        if rates["bronze"].warm_per_second:
            yield _info("Bronze, warm / bare consumer", rates["bronze"].warm_per_second / limit)
        if results.tuned_consumer is not None:
            tuned = results.tuned_consumer.records / results.tuned_consumer.seconds
            yield _info("Bronze, cold / consumer with large fetches", rates["bronze"].per_second / tuned)
    heaps = [rate.usage.heap_mib for rate in rates.values()] + ([results.live.usage.heap_mib] if results.live else [])
    if any(heaps):
        yield Target("Largest driver heap (-Xmx)", f"{max(heaps):,.0f} MiB", f"<= {HEAP_MIB:,} MiB", max(heaps) <= HEAP_MIB)
    if results.growth is not None:
        yield _at_most("Silver batch, ten times the rows / once", results.growth.ratio, GROWTH)
        yield _info("The same, all rows in the dedup window", results.growth.window_ratio)
    if results.pace is not None:
        yield _at_most("Gold batch, thirty times the day's rows / once", results.pace.ratio, PACE)
    if results.live is not None:
        p95, slope = results.live.p95, results.live.slope
        yield Target("Live p95, Kafka to committed Silver", f"{p95:.2f} s", f"<= {LIVE_P95_SECONDS:g} s", p95 <= LIVE_P95_SECONDS)
        yield Target("Live lag, growth of the median", f"{slope:+.3f} s/min", f"<= {LIVE_SLOPE:g} s/min", slope <= LIVE_SLOPE)


def growth_medians(growth: GrowthResult) -> list[tuple[str, int, float]]:
    """For each table its meaning, rows and median batch milliseconds."""
    rows, factor = growth.plan.rows, FACTOR
    return [
        (f"history of {DAYS} days", rows, statistics.median(growth.small_ms)),
        (f"history of {DAYS * FACTOR} days", rows * factor, statistics.median(growth.large_ms)),
        ("all within the last 24 h", rows * factor, statistics.median(growth.window_ms)),
    ]


def _at_least(name: str, found: float, target: float) -> Target:
    return Target(name, f"{found:.2f}", f">= {target:g}", found >= target)


def _at_most(name: str, found: float, target: float) -> Target:
    return Target(name, f"{found:.2f}", f"<= {target:g}", found <= target)


def _info(name: str, found: float) -> Target:
    return Target(name, f"{found:.2f}", "", None)
