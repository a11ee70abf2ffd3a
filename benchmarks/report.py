"""The bench's results as tables: for the terminal, and as `docs/performance.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.live import LiveResult
from benchmarks.pace import FACTOR as PACE_FACTOR
from benchmarks.results import Results, growth_medians, targets

_NAMES = {
    "peer": "Peer, whole chain",
    "bronze": "Bronze, new process",
    "silver": "Silver, new process",
    "gold": "Gold, new process",
    "chain": "Chain in one driver",
}


_PEER_NOTE = (
    "The peer is one process of confluent-kafka, DuckDB (2 threads) and deltalake that writes the same tables: raw append, "
    "strict parsing, dead letters, dedupe in the batch and against the table with the first copy surviving, hourly and daily "
    "aggregates by MERGE. It reads the next batch while it works on one. It keeps no batch ledger, counts no conflicts, and "
    "after a crash it starts again from nothing."
)


@dataclass(frozen=True)
class Grid:
    """A table: title, heads (the first column is text, the others numbers), rows, and what to know of it."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def print_report(console: Console, results: Results) -> None:
    """Print all tables that have rows."""
    for grid in grids(results):
        table = Table(title=grid.title, title_justify="left")
        for index, head in enumerate(grid.heads):
            table.add_column(head, justify="left" if index == 0 else "right")
        for row in grid.rows:
            table.add_row(*(_coloured(cell) for cell in row))
        console.print(table)
        console.print(f"{grid.note}\n")


def markdown(results: Results, machine: dict[str, str], day: date, command: str) -> str:
    """Give the page `docs/performance.md`."""
    lines = [
        "# Performance",
        "",
        f"Written by `{command}` on {day.isoformat()}; do not edit. Every number is from this one run.",
        "",
    ]
    for grid in [*grids(results), Grid("Machine", ("", ""), list(machine.items()), "")]:
        lines += [f"## {grid.title}", "", _row(grid.heads), _row(("---", *("---:" for _ in grid.heads[1:])))]
        lines += [*(_row(row) for row in grid.rows), ""]
        lines += [grid.note, ""] if grid.note else []
    return "\n".join(lines)


def grids(results: Results) -> Iterator[Grid]:
    """Yield the tables of the parts that were measured."""
    judged = [(target.name, target.found, target.target, target.verdict) for target in targets(results)]
    if judged:
        yield Grid("Targets", ("Measure", "Found", "Target", "Verdict"), judged)
    if rates := _rate_rows(results):
        heads = ("Stage", "Events/s", "Events/CPU-s", "Events/s warm", "Seconds", "CPU-s", "Peak memory", "Heap")
        yield Grid("Rates", heads, rates, _rates_note(results))
    if results.peer_steps:
        steps = [(name, f"{seconds:.1f}") for name, seconds in results.peer_steps.items()]
        yield Grid("The peer's seconds", ("Step, on its main thread", "Seconds"), steps, _PEER_NOTE)
    if results.growth is not None:
        plan = results.growth.plan
        rows = [(name, f"{rows:,}", f"{median:,.0f} ms") for name, rows, median in growth_medians(results.growth)]
        note = f"Median of {plan.batches} Silver batches of {plan.batch:,} records in one process, the first batch left out."
        yield Grid("Growth", ("Silver's rows", "Rows", "Median batch"), rows, note)
    if results.pace is not None:
        pace = results.pace
        sizes = ((pace.plan.rows, pace.small_ms), (pace.plan.rows * PACE_FACTOR, pace.large_ms))
        rows = [(f"{rows:,}", f"{median(ms):,.0f} ms", f"{min(ms):,} to {max(ms):,} ms") for rows, ms in sizes]
        note = (
            f"{pace.plan.batches} Gold batches of {pace.plan.batch:,} changed rows in one process: of the day's last hour, and "
            "1 % of any hour; the first two are left out."
        )
        yield Grid("Gold's pace", ("Rows of the day", "Median batch", "All"), rows, note)
    if results.batch is not None:
        found = results.batch
        row = (f"{found.events:,}", f"{found.usage.seconds:.1f}", f"{found.usage.cpu_seconds:.1f}", found.gate)
        note = f"A new process: Spark's start, the recompute, an audit by {found.expectations} expectations, the closing."
        yield Grid("Daily batch", ("Events of the day", "Seconds", "CPU-s", "Gate"), [row], note)
    if results.live is not None:
        yield _live_grid(results.live)


def _rate_rows(results: Results) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    consumers = {"Bare consumer": results.consumer, "Bare consumer, large fetches": results.tuned_consumer}
    for name, found in consumers.items():
        if found is not None:
            rates = _rates(found.records / found.seconds, found.records / found.cpu_seconds, None)
            rows.append((name, *rates, f"{found.seconds:.1f}", f"{found.cpu_seconds:.1f}", "", ""))
    for key, name in _NAMES.items():
        if (rate := results.rates.get(key)) is not None:
            usage = rate.usage
            times = (f"{usage.seconds:.1f}", f"{usage.cpu_seconds:.1f}")
            memory = (f"{usage.peak_rss_mib:,.0f} MiB", f"{usage.heap_mib:,.0f} MiB" if usage.heap_mib else "")
            rows.append((name, *_rates(rate.per_second, rate.per_cpu_second, rate.warm_per_second), *times, *memory))
    return rows


def _rates(per_second: float, per_cpu_second: float, warm: float | None) -> tuple[str, ...]:
    return (f"{per_second:,.0f}", f"{per_cpu_second:,.0f}", f"{warm:,.0f}" if warm else "")


def _rates_note(results: Results) -> str:
    note = (
        f"{results.events:,} records of {results.value_bytes:.0f} bytes on average, six partitions, the broker beside them. "
        "Wall clock and CPU are of the whole process tree from start to end, JVM and imports included, the broker excluded. "
        "Warm: from the first batch's start to the last commit (of the peer: without its imports)."
    )
    if results.expected is not None and {"peer", "chain"} <= results.rates.keys():
        note += f" All programs came to the same counts, which are the op ledger's: {results.expected}."
    return note


def _live_grid(live: LiveResult) -> Grid:
    rows = [("All", f"{live.p50:.2f} s", f"{live.p95:.2f} s", f"{live.p99:.2f} s")]
    rows += [(f"Minute {number}", f"{p50:.2f} s", f"{p95:.2f} s", "") for number, (p50, p95) in enumerate(live.minutes, 1)]
    plan, usage = live.plan, live.usage
    note = (
        f"{plan.rate:,} events/s for {plan.seconds} s after {plan.warm_up_seconds} s of warm-up, Bronze and Silver in a driver; "
        f"{live.events:,} Silver rows in {live.commits} versions. From the Kafka timestamp to the appearance of the first Silver "
        f"version that holds the row. The median grew by {live.slope:+.3f} s a minute. The driver used "
        f"{usage.cpu_seconds / usage.seconds:.2f} cores and at most {usage.peak_rss_mib:,.0f} MiB."
    )
    return Grid("Live latency", ("Events", "p50", "p95", "p99"), rows, note)


def _coloured(cell: str) -> str:
    return {"met": "[green]met[/green]", "missed": "[red]missed[/red]"}.get(cell, cell)


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
