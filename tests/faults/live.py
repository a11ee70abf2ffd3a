"""What goes on while a fault happens: events that keep coming, a driver that runs, and how far its layers have come."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.producer import ProduceSummary, produce_events
from lakehouse.operations.streams import STREAMS, run_live
from pipelines.lake.errors import LakehouseError
from pipelines.lake.kafka.topic import ask_topic
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.tables import SILVER
from tests.faults.conftest import COMMAND, DAY, PATIENCE, LakeCase

_DATA = ("WRITE", "MERGE", "UPDATE", "DELETE")
"""Operations that change rows, as a table's history names them."""


def until(what: Callable[[], object], seconds: float = 60, poll: float = 0.2) -> None:
    """Wait until `what` gives something true; it is shown where it does not come within `seconds`, times PATIENCE."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what.__qualname__}"
        time.sleep(poll)


def lag(settings: Settings) -> str | None:
    """What the first layer that lags has not read; None where none does."""
    ledger = Ledger(settings)
    try:
        kafka = {part: end for part, end in ask_topic(settings, 5.0).end.items() if end}
    except LakehouseError as error:
        return str(error)
    bronze, silver = ({part: end for part, end in ledger.end_offsets(job).items() if end} for job in ("bronze", "silver"))
    if bronze != kafka:
        return f"bronze: {bronze} of {kafka}"
    if silver != bronze:
        return f"silver: {silver} of {bronze}"
    seen = max((row.silver_versions[1] for row in ledger.batches("gold") if row.silver_versions), default=-1)
    written = [commit["version"] for commit in DeltaTable(SILVER.path(settings)).history() if commit["operation"] in _DATA]
    return f"gold: {seen} of {max(written)}" if seen < max(written) else None


def await_no_lag(settings: Settings, seconds: float = 60) -> None:
    """Wait until no layer lags; `seconds` as in `until`."""
    deadline = time.monotonic() + seconds * PATIENCE
    while (found := lag(settings)) is not None:
        assert time.monotonic() < deadline, f"after {seconds:g} s: {found}"
        time.sleep(0.2)


def read_so_far(settings: Settings, job: str = "bronze") -> int:
    """Offsets that a job has read, by the ledger."""
    return sum(Ledger(settings).end_offsets(job).values())


def rows_of(settings: Settings) -> int:
    """Rows of Silver; 0 where there is no table yet."""
    try:
        return int(DeltaTable(SILVER.path(settings)).to_pyarrow_table(columns=["event_id"]).num_rows)
    except TableNotFoundError:
        return 0


def in_batch(case: LakeCase, job: str) -> bool:
    """Whether a batch of the job is planned and not committed, by Spark's files."""

    def newest(log: str) -> int:
        folder = Path(case.settings.lake.checkpoints) / job / "g1" / log
        return max((int(path.name) for path in folder.glob("[0-9]*")), default=-1)

    return newest("offsets") > newest("commits")


def produce(case: LakeCase, seed: int, count: int, mix: Mix | None = None) -> ProduceSummary:
    """Send events of an hour of `DAY`, which the op ledger knows."""
    plan = ProducePlan(count=count, seed=seed, start_time=DAY, span_seconds=3600.0, mix=mix or Mix())
    return produce_events(case.settings, plan, case.folder / "op_ledger")


@dataclass
class Load:
    """Events that keep coming at a steady rate, stamped now, until `end`; every one of them is acknowledged in the end."""

    case: LakeCase
    seed: int
    rate: float
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _outcome: list[ProduceSummary | BaseException] = field(default_factory=list)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._produce)
        self._thread.start()

    def end(self) -> None:
        """Stop sending and wait for the acknowledgements of what was sent."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        (outcome,) = self._outcome
        assert isinstance(outcome, ProduceSummary), outcome
        assert outcome.failed == 0, outcome

    def _produce(self) -> None:
        plan = ProducePlan(count=1_000_000, seed=self.seed, rate=self.rate)
        try:
            self._outcome.append(produce_events(self.case.settings, plan, self.case.folder / "op_ledger", stop=self._stop))
        except BaseException as error:  # raised where the load is ended
            self._outcome.append(error)


@contextmanager
def load(case: LakeCase, seed: int, rate: float = 200) -> Iterator[Load]:
    """Let events come for the block, or until they are ended in it."""
    events = Load(case, seed, rate)
    events.start()
    try:
        yield events
    except BaseException:
        events._stop.set()
        if events._thread is not None:
            events._thread.join()
        raise
    events.end()


class _Restarts(logging.Handler):
    """Keeps the causes for which streams were started again."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.causes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("stream failed, starting it again"):
            self.causes.append(str(getattr(record, "fields", {}).get("cause")))


@dataclass
class Driver:
    """The streams of a lake, live in this process's session; `error` is what they ended with by themselves."""

    spark: SparkSession
    settings: Settings
    names: Sequence[str] = tuple(STREAMS)
    error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _restarts: _Restarts = field(default_factory=_Restarts)

    def __enter__(self) -> Driver:
        logging.getLogger("lakehouse.up").addHandler(self._restarts)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self.join()
        logging.getLogger("lakehouse.up").removeHandler(self._restarts)

    @property
    def restarts(self) -> list[str]:
        """Causes for which a stream was started again."""
        return self._restarts.causes

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def until(self, what: Callable[[], object], seconds: float) -> None:
        """Wait as the function of that name; streams that have ended by themselves are not waited for."""
        until(lambda: what() or not self.is_running, seconds)
        assert self.is_running, self.error

    def join(self, seconds: float = 120) -> None:
        """Wait until the streams have ended."""
        assert self._thread is not None
        self._thread.join(seconds)
        assert not self.is_running, "the streams do not end"

    def _run(self) -> None:
        try:
            run_live(self.spark, self.settings, self.names, self._stop)
        except BaseException as error:
            self.error = error


@dataclass
class Child:
    """`lakehouse up` as a process of its own, and what it has said."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End it and its JVM by SIGKILL."""
        if self.is_running:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)


@contextmanager
def up(case: LakeCase, *flags: str) -> Iterator[Child]:
    """Run `lakehouse up` for the block, or until it ends."""
    log = case.folder / "up.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*COMMAND, "up", "--config", str(case.config), *flags],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    child = Child(process, log)
    try:
        yield child
    finally:
        child.kill()
