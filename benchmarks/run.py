"""The bench: `python -m benchmarks.run`, which is what `make bench` calls.

Exit code 0 when all was measured, whether or not a target was met; 1 when two programs come to different counts.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import consumer, stages
from benchmarks.batch import measure_batch
from benchmarks.growth import GrowthPlan, measure_growth
from benchmarks.live import LivePlan, measure_live
from benchmarks.machine import describe_machine, load_average
from benchmarks.pace import PacePlan, measure_pace
from benchmarks.report import markdown, print_report
from benchmarks.results import Results
from benchmarks.workload import Run, expected_fates, fill_topic, mean_value_bytes, new_run
from lakehouse.local.event_plan import ProducePlan
from lakehouse.local.kafka_broker import EmbeddedBroker
from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.kafka.options import bootstrap_servers
from pipelines.lake.process import run_process
from pipelines.lake.resources import PROJECT

PARTS = ("consumer", "peer", "stages", "chain", "growth", "pace", "batch", "live")
TOPIC = "bench-events"
REPORT = PROJECT / "docs" / "performance.md"
_SHARED_TOPIC = {"consumer", "peer", "stages", "chain"}
_MARKER = ".bench"
_FILE_WIDTH = 120
_BUSY = 0.5
"""Load average of an idle machine, at most."""


@dataclass(frozen=True)
class BenchPlan:
    """What is measured, and how large."""

    parts: tuple[str, ...]
    events: int
    peer_batch: int
    growth: GrowthPlan
    pace: PacePlan
    live: LivePlan
    batch_events: int


def run_bench(work: Path, plan: BenchPlan, console: Console) -> Results:
    """Measure the parts of `plan` in a new folder `work`, on a broker of its own.

    Raises CountsDifferError where the counts of two programs differ.
    """
    _clear(work)
    results = Results(events=plan.events)
    with EmbeddedBroker(work / "state"):
        if _SHARED_TOPIC & set(plan.parts):
            _measure_rates(work, plan, results, console)
        if "growth" in plan.parts:
            results.growth = measure_growth(work, plan.growth, console.log)
        if "pace" in plan.parts:
            results.pace = measure_pace(work, plan.pace, console.log)
        if "batch" in plan.parts:
            results.batch = measure_batch(work, plan.batch_events, console.log)
        if "live" in plan.parts:
            results.live = measure_live(new_run(work, "live", "bench-live"), plan.live, console.log)
            if results.live.found != results.live.expected:
                msg = f"Live, the lake has {results.live.found}; the op ledger expects {results.live.expected}."
                raise stages.CountsDifferError(msg)
    return results


def _clear(work: Path) -> None:
    """Make `work` an empty folder; raises UsageError where it holds something that is not the bench's."""
    if work.exists() and any(work.iterdir()) and not (work / _MARKER).exists():
        msg = f"The folder {work} holds files that are not the bench's; give another one with --work."
        raise UsageError(msg)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / _MARKER).touch()


def _measure_rates(work: Path, plan: BenchPlan, results: Results, console: Console) -> None:
    source = new_run(work, "source", TOPIC)
    console.log(f"producing {plan.events:,} events")
    results.produced_per_second = fill_topic(source, ProducePlan(count=plan.events, seed=1)).events_per_second
    results.expected = expected_fates(source)
    results.value_bytes = mean_value_bytes(source)
    if "consumer" in plan.parts:
        console.log("consumer, read only")
        servers = bootstrap_servers(source.settings)
        results.consumer = consumer.measure_consumer(servers, TOPIC, consumer.PLAIN)
        results.tuned_consumer = consumer.measure_consumer(servers, TOPIC, consumer.TUNED)
    outcomes: dict[str, stages.Outcome] = {}
    for name in [part for part in ("peer", "stages", "chain") if part in plan.parts]:
        outcomes[name] = _measure_program(name, work, plan, results, console)
    stages.compare(outcomes, results.expected)


def _measure_program(name: str, work: Path, plan: BenchPlan, results: Results, console: Console) -> stages.Outcome:
    run: Run = new_run(work, name, TOPIC)
    console.log(
        {"peer": "peer", "stages": "bronze, silver and gold, each as a new process", "chain": "the whole chain in one driver"}[
            name
        ]
    )
    if name == "peer":
        results.rates["peer"], answer = stages.run_peer(run, plan.peer_batch)
        results.peer_steps = answer.steps
        outcome = stages.peer_outcome(answer)
    else:
        rates = stages.run_stages(run, plan.events) if name == "stages" else {"chain": stages.run_chain(run, plan.events)}
        results.rates.update(rates)
        outcome = stages.lake_outcome(run)
    run.clear()
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench from the command line."""
    args = _parser().parse_args(argv)
    console = Console(log_path=False)
    if not console.is_terminal:
        console = Console(log_path=False, width=_FILE_WIDTH)
    try:
        plan = _plan(args)
        load = load_average()
        if load > _BUSY:
            console.log(f"something else runs here (load {load:.1f}): the numbers will be too low")
        results = run_bench(args.work, plan, console)
        machine = {**describe_machine(), "Load before": f"{load:.1f}"}
        page = markdown(results, machine, datetime.now(UTC).date(), _command(plan, quick=args.quick))
    except LakehouseError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    print_report(console, results)
    whole = set(plan.parts) == set(PARTS) and not args.quick
    target = args.report or (REPORT if whole else args.work / "performance.md")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    console.print(f"Written to {target}.")
    if not args.keep:
        shutil.rmtree(args.work / "state", ignore_errors=True)
        shutil.rmtree(args.work / "op_ledger", ignore_errors=True)
    return 0


def _plan(args: argparse.Namespace) -> BenchPlan:
    parts = tuple(part.strip() for part in args.only.split(",")) if args.only else PARTS
    if unknown := [part for part in parts if part not in PARTS]:
        msg = f"--only names {', '.join(unknown)}, expected some of {', '.join(PARTS)}; correct it."
        raise UsageError(msg)
    growth = GrowthPlan(args.growth_rows, args.growth_batch)
    pace = PacePlan(args.pace_rows, args.pace_batch)
    live = LivePlan(args.live_rate, args.live_seconds)
    events = args.events
    if args.quick:
        events, growth, pace = min(events, 200_000), GrowthPlan(50_000, 5_000, 5), PacePlan(10_000, 500, 3)
        live = LivePlan(args.live_rate, 45, 15)
    return BenchPlan(parts, events, args.peer_batch, growth, pace, live, min(args.batch_events, events))


def _command(plan: BenchPlan, *, quick: bool) -> str:
    """The command that repeats the run, without paths."""
    if set(plan.parts) == set(PARTS) and not quick:
        return f"make bench BENCH_EVENTS={plan.events}"
    return f"python -m benchmarks.run --events {plan.events} --only {','.join(plan.parts)}{' --quick' if quick else ''}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Measure the project, a bare consumer and a DuckDB peer."
    )
    parser.add_argument("--events", type=int, default=5_000_000, help="events on the shared topic (default: %(default)s)")
    parser.add_argument("--only", default="", help=f"parts to measure, of {','.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that the bench works, not how fast anything is")
    parser.add_argument("--peer-batch", type=int, default=500_000, help="records in a batch of the peer (default: %(default)s)")
    parser.add_argument(
        "--growth-rows", type=int, default=500_000, help="rows of the smaller Silver table (default: %(default)s)"
    )
    parser.add_argument("--growth-batch", type=int, default=20_000, help="records in a Silver batch (default: %(default)s)")
    parser.add_argument("--pace-rows", type=int, default=100_000, help="rows of Gold's smaller day (default: %(default)s)")
    parser.add_argument("--pace-batch", type=int, default=2_000, help="changed rows in a Gold batch (default: %(default)s)")
    parser.add_argument(
        "--batch-events", type=int, default=1_000_000, help="events of the day that the batch closes (default: %(default)s)"
    )
    parser.add_argument("--live-rate", type=int, default=2000, help="events per second (default: %(default)s)")
    parser.add_argument("--live-seconds", type=int, default=300, help="seconds that are measured (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=PROJECT / "build" / "bench", help="folder that is made anew")
    parser.add_argument(
        "--report", type=Path, help="page to write (default: docs/performance.md after a whole run, else WORK/performance.md)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the topics and the op ledger")
    return parser


if __name__ == "__main__":
    run_process(main)
