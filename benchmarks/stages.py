"""The project's own rates: each job as a cold process, the whole chain in one driver, and the peer beside them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
from deltalake import DeltaTable

from benchmarks.measure import Measured, Usage
from benchmarks.peer import PeerResult
from benchmarks.workload import Fates, Run, count_rows, lake_fates, ledger_rows
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import LakehouseError
from pipelines.lake.kafka.options import bootstrap_servers
from pipelines.lake.tables import GOLD_DAILY, GOLD_HOURLY

JOBS = {
    "bronze": "pipelines.bronze.bronze_ingestion",
    "silver": "pipelines.silver.silver_processing",
    "gold": "pipelines.gold.gold_aggregation",
}


class CountsDifferError(LakehouseError):
    """Raised when two programs come to different counts on one topic: then their rates must not be compared."""


@dataclass(frozen=True)
class Rate:
    """Events taken through a stage and what that cost; `warm_seconds` is from the first batch's start to the last commit."""

    events: int
    usage: Usage
    warm_seconds: float | None = None
    batches: int = 0

    @property
    def per_second(self) -> float:
        """Events per second of wall clock, from the start of the process to its end."""
        return self.events / self.usage.seconds

    @property
    def per_cpu_second(self) -> float:
        """Events per second of CPU of the whole process tree."""
        return self.events / self.usage.cpu_seconds

    @property
    def warm_per_second(self) -> float | None:
        """Events per second without the start of the process."""
        return self.events / self.warm_seconds if self.warm_seconds else None


@dataclass(frozen=True)
class Outcome:
    """The counts that a program came to: fates, and the rows and events of Gold."""

    fates: Fates
    gold_hourly: int
    gold_daily: int
    gold_events: int


def run_stages(run: Run, events: int) -> dict[str, Rate]:
    """Run Bronze, Silver and Gold one after the other with `available-now`, each as a new process."""
    rates = {}
    for job, module in JOBS.items():
        command = [sys.executable, "-m", module, "--config", str(run.config), "--trigger", "available-now"]
        with Measured(job, command, run.folder) as process:
            usage = process.wait()
        rates[job] = _with_warm(run, [job], events, usage)
    return rates


def run_chain(run: Run, events: int) -> Rate:
    """Run the whole chain with `available-now` in one new driver."""
    command = [sys.executable, "-m", "lakehouse", "up", "--config", str(run.config), "--trigger", "available-now"]
    with Measured("chain", command, run.folder) as process:
        usage = process.wait()
    return _with_warm(run, list(JOBS), events, usage)


def run_peer(run: Run, batch_size: int) -> tuple[Rate, PeerResult]:
    """Run the peer on the run's topic into the run's folder."""
    result, lake = run.folder / "peer.json", Path(run.settings.lake.root)
    command = [sys.executable, "-m", "benchmarks.peer", "--bootstrap-servers", bootstrap_servers(run.settings)]
    command += ["--topic", run.settings.kafka.topic, "--lake", str(lake), "--batch", str(batch_size), "--result", str(result)]
    with Measured("peer", command, run.folder) as process:
        usage = process.wait()
    answer = PeerResult(**json.loads(result.read_text(encoding="utf-8")))
    return Rate(answer.rows_read, usage, answer.seconds), answer


def peer_outcome(answer: PeerResult) -> Outcome:
    """The peer's counts."""
    fates = Fates(answer.rows_read, answer.silver, answer.duplicate, answer.dead_lettered, answer.tombstone)
    return Outcome(fates, answer.gold_hourly, answer.gold_daily, answer.gold_events)


def lake_outcome(run: Run) -> Outcome:
    """The project's counts."""
    hourly = rows_dataset(DeltaTable(GOLD_HOURLY.path(run.settings))).to_table(columns=["event_count"])
    fates = lake_fates(run.settings)
    return Outcome(fates, hourly.num_rows, count_rows(GOLD_DAILY, run.settings), int(pc.sum(hourly["event_count"]).as_py() or 0))


def compare(found: dict[str, Outcome], expected: Fates) -> None:
    """Raise CountsDifferError where a program's fates are not the op ledger's, or Gold's rows differ between programs."""
    for name, outcome in found.items():
        if outcome.fates != expected:
            msg = f"The counts of {name} are wrong: it has {outcome.fates}; the op ledger expects {expected}."
            raise CountsDifferError(msg)
        if outcome.gold_events != expected.silver:
            msg = f"The hours of Gold of {name} add up to {outcome.gold_events:,} events, expected {expected.silver:,}."
            raise CountsDifferError(msg)
    gold = {name: (outcome.gold_hourly, outcome.gold_daily) for name, outcome in found.items()}
    if len(set(gold.values())) > 1:
        msg = f"The programs have different numbers of rows in Gold (hourly, daily): {gold}; expected the same."
        raise CountsDifferError(msg)


def _with_warm(run: Run, jobs: list[str], events: int, usage: Usage) -> Rate:
    spans = [ledger_rows(run.settings, "min(started_at), max(committed_at), count(*)", job)[0] for job in jobs]
    if any(first is None for first, _, _ in spans):
        msg = f"A job of {', '.join(jobs)} wrote no batch; see the logs in {run.folder}."
        raise LakehouseError(msg)
    warm = sum((last - first).total_seconds() for first, last, _ in spans)
    return Rate(events, usage, warm, sum(count for *_, count in spans))
