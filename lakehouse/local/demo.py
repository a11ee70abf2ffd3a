"""The demo: the whole path on a real broker, from nothing to a closed bill, and the proof that no record went missing."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from threading import Event

from pyspark.sql import SparkSession

from lakehouse.local.demo_figures import Conservation, busiest_day, count_acknowledged, count_batches, read_conservation
from lakehouse.local.demo_folder import DemoFolder
from lakehouse.local.demo_process import Work
from lakehouse.local.demo_screen import Screen
from lakehouse.local.event_plan import ProducePlan
from lakehouse.local.producer import produce_events
from lakehouse.operations.streams import STREAMS
from lakehouse.proof.checks import CheckResult, check_parameters, load_checks, run_checks
from lakehouse.proof.result import Invariant
from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import files_below
from pipelines.runtime.delta import register_tables
from pipelines.runtime.session import build_session
from pipelines.runtime.stream_life import AVAILABLE_NOW, await_query

_SEED = 4
"""Of a fresh lake: it shows the same picture each time."""
_LONGEST_HISTORY = timedelta(hours=50)
_POLL_SECONDS = 0.5


class DemoStopped(Exception):
    """Raised inside the demo's thread where it was asked to stop."""


@dataclass
class DemoResult:
    """What the demo found; `day` is None where no day was complete."""

    conservation: Conservation
    invariants: list[Invariant]
    checks: list[CheckResult]
    day: date | None = None
    outcome: Outcome | None = None

    @property
    def is_fine(self) -> bool:
        """Whether every record is accounted for, no invariant is violated and no check is red."""
        violated = any(result.verdict == "violated" for result in self.invariants)
        return self.conservation.holds and not violated and not any(result.is_red for result in self.checks)


@dataclass
class Demo:
    """One run on a running broker; `run` is called in a thread of its own."""

    settings: Settings
    folder: DemoFolder
    screen: Screen
    events: int
    keep: bool
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def run(self, work: Work[DemoResult]) -> DemoResult:
        """Produce, run the streams to the end, close the busiest complete day, check; raises DemoStopped when told to stop."""
        with work.draining() as stop:
            self._produce(stop)
        with self.screen.stage("Spark") as stage:
            spark = build_session(self.settings, "demo")
            stage.say(f"session of Spark {spark.version}")
        try:
            for name in STREAMS:
                _go_on(work.stop)
                with work.draining() as stop:
                    self._stream(spark, name, stop)
            _go_on(work.stop)
            day, outcome = self._reconcile(spark)
            _go_on(work.stop)
            checks = self._check(spark)
        finally:
            spark.stop()
        _go_on(work.stop)
        with self.screen.stage("Invariants") as stage:
            invariants = verify(self.settings, VerifyOptions(ledger=self.folder.op_ledger), stage.say)
            held = sum(result.verdict == "holds" for result in invariants)
            stage.say(f"{held} hold, {sum(result.verdict == 'violated' for result in invariants)} violated")
        return DemoResult(read_conservation(self.settings, self.folder.op_ledger), invariants, checks, day, outcome)

    def _produce(self, stop: Event) -> None:
        with self.screen.stage("Produce") as stage:
            summary = produce_events(
                self.settings,
                self.plan(),
                self.folder.op_ledger,
                lambda acked: stage.advance_to(acked, self.events),
                stop=stop,
            )
            _go_on(stop)
            stage.say(_rate(summary.acked, summary.seconds, "acknowledged"))

    def plan(self) -> ProducePlan:
        """History from the last day that may be closed until now; where a day is closed already, of the time since."""
        first = self._closing_time() - timedelta(hours=self.settings.reconcile.grace_hours)
        start, seed = first.replace(hour=0, minute=0, second=0, microsecond=0), secrets.randbelow(2**32)
        if not (self.keep and files_below(self.folder.op_ledger, "*.parquet")):
            start, seed = start - timedelta(days=1), _SEED
        return ProducePlan(count=self.events, seed=seed, start_time=start, span_seconds=(self.now - start).total_seconds())

    def _closing_time(self) -> datetime:
        """The clock that days are closed by: some records behind, as a day is over when Kafka's time says so."""
        return self.now - timedelta(minutes=10) - 5 * _LONGEST_HISTORY / self.events

    def _stream(self, spark: SparkSession, name: str, stop: Event) -> None:
        before = count_batches(self.settings, name)["rows_read"]
        total = self._expected(name) - before
        began = time.monotonic()
        with self.screen.stage(name.capitalize()) as stage:
            query = STREAMS[name](spark, self.settings, trigger=AVAILABLE_NOW)
            while query.isActive and not stop.is_set():
                query.awaitTermination(_POLL_SECONDS)  # type: ignore[arg-type]  # fractions are fine
                stage.advance_to(count_batches(self.settings, name)["rows_read"] - before, total)
            await_query(query, stop)
            _go_on(stop)
            stage.say(_rate(count_batches(self.settings, name)["rows_read"] - before, time.monotonic() - began))

    def _expected(self, name: str) -> int:
        """Records that the stream will have read in its life when it has come to the end."""
        if name == "bronze":
            return count_acknowledged(self.folder.op_ledger)
        return count_batches(self.settings, "bronze" if name == "silver" else "silver")["inserted"]

    def _reconcile(self, spark: SparkSession) -> tuple[date | None, Outcome | None]:
        day = busiest_day(self.settings, self._closing_time())
        if day is None:
            return None, None
        with self.screen.stage("Reconcile") as stage:
            outcome = reconcile(spark, self.settings, Paths.of(self.settings), day, datetime.now(UTC))
            stage.say(f"{day} is {outcome.status}" + (f"; audit {outcome.audit.gate}" if outcome.audit else ""))
        return day, outcome

    def _check(self, spark: SparkSession) -> list[CheckResult]:
        with self.screen.stage("SQL checks") as stage:
            register_tables(spark, self.settings)
            checks = load_checks()
            stage.say(f"{len(checks)} checks")
            results = run_checks(spark, checks, None, check_parameters(self.settings, None))
            red = sum(result.is_red for result in results)
            stage.say(f"{len(results)} checks, {red or 'none'} red")
        return results


def _go_on(stop: Event) -> None:
    if stop.is_set():
        raise DemoStopped


def _rate(records: int, seconds: float, word: str = "records") -> str:
    return f"{records:,} {word}, {records / max(seconds, 0.001):,.0f}/s"
