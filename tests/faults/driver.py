"""The driver of all streams (`lakehouse up`) as a process of its own, to which things happen while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from deltalake import DeltaTable

from pipelines.lake.failpoints import POINTS, VARIABLE
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import SILVER, TableName
from tests.faults.conftest import COMMAND, DAY, PATIENCE, LakeCase

JOBS = ("bronze", "silver", "gold")
PER_ROUND = 900
SPAN_SECONDS = 4 * 3600.0
_LOOK_SECONDS = 0.3
_TIGHT_SECONDS = 0.001


@dataclass
class Driver:
    """A lake and the process that fills it; `rounds` counts what was sent, so that each event is another one."""

    case: LakeCase
    seed: int
    process: subprocess.Popen[bytes] | None = None
    rounds: int = 0
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What the last process said."""
        return self.case.folder / "up.log"

    @property
    def pid(self) -> int:
        """Process id of the running driver, which is that of its group too."""
        assert self.process is not None
        return self.process.pid

    def start(self, *flags: str) -> None:
        """Start it; no failpoint is armed."""
        self._armed.unlink(missing_ok=True)
        environ = {**os.environ, "PYTHONPATH": str(PROJECT), VARIABLE: f"@{self._armed}", **self.environ}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*COMMAND, "up", "--config", str(self.case.config), *flags],
                env=environ,
                cwd=PROJECT,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Whether its Python process lives."""
        return self.process is not None and self.process.poll() is None

    def send(self, count: int = PER_ROUND) -> None:
        """Send new events."""
        self.rounds += 1
        self.case.produce(count, seed=1_000_000 * self.seed + self.rounds, span_seconds=SPAN_SECONDS)

    def send_earlier_copies(self, count: int) -> None:
        """Send the last round's first events once more, as if Kafka had taken them before: they take the rows' places."""
        span = count * SPAN_SECONDS / PER_ROUND
        before = DAY - timedelta(hours=1)
        self.case.produce(count, seed=1_000_000 * self.seed + self.rounds, start=before, span_seconds=span)

    def arm(self, point: str) -> None:
        """Let it die at a failpoint the next time it comes there."""
        assert point in POINTS
        self._armed.write_text(point)

    def dies(self, seconds: float = 60) -> int:
        """Wait until it has ended; return its exit code (negative: the signal)."""
        assert self.process is not None
        code = self.process.wait(seconds * PATIENCE)
        # Its JVM, if the fault was Python's alone.
        for pid in self.children():
            with suppress(ProcessLookupError):  # it may end by itself meanwhile
                os.kill(pid, signal.SIGKILL)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its Python process and its JVM."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill Python and JVM at the same moment."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        assert self.process.wait(30) == -signal.SIGKILL

    def kill_as_soon_as(self, happens: Callable[[], bool], seconds: float = 60) -> None:
        """Kill it in the moment in which `happens` becomes true."""
        self.wait(happens, seconds, every=_TIGHT_SECONDS)
        self.kill()

    def wait(self, until: Callable[[], bool], seconds: float = 60, *, every: float = _LOOK_SECONDS) -> None:
        """Wait for something that the running driver does."""
        deadline = time.monotonic() + seconds * PATIENCE
        while not until():
            assert self.is_running(), self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(every)

    def wait_for_no_lag(self) -> None:
        """Wait until every layer has read all that the one before it has."""
        ends = wait_for_topic(self.case.settings).end
        ledger = Ledger(self.case.settings)
        self.wait(lambda: ledger.end_offsets("bronze") == ends, 120)
        self.wait(lambda: ledger.end_offsets("silver") == ends, 120)
        self.wait(lambda: self._gold_version() == self.version(SILVER), 120)
        # The ledger comes before the commit log.
        self.wait(lambda: all(self.planned(job) == self.committed(job) for job in JOBS))

    def _gold_version(self) -> int:
        rows = Ledger(self.case.settings).since("gold", DAY)
        return max((row.silver_versions[1] for row in rows if row.silver_versions), default=-1)

    def said(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-3000:]

    def children(self) -> list[int]:
        """The processes of its group that live, its Python process aside: the JVM."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, state, group = _stat(stat.read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
            if group == self.pid and pid != self.pid and state != "Z":
                found.append(pid)
        return found

    def path(self, table: TableName) -> Path:
        """Folder of a table."""
        return Path(table.path(self.case.settings))

    def version(self, table: TableName) -> int:
        """Version of a table."""
        return DeltaTable(table.path(self.case.settings)).version()

    def checkpoint(self, job: str) -> Path:
        """Folder of the job's checkpoint."""
        return Path(self.case.settings.lake.checkpoints) / job / "g1"

    def planned(self, job: str) -> int:
        """Last batch of the offset log, -1 without one."""
        return last_batch(self.checkpoint(job) / "offsets")

    def committed(self, job: str) -> int:
        """Last batch of the commit log, -1 without one."""
        return last_batch(self.checkpoint(job) / "commits")

    def written(self, job: str, table: TableName) -> int:
        """Last batch of the job's transactions in a table, -1 without one."""
        marker = json.loads((self.checkpoint(job) / "lakehouse.json").read_text())
        found = DeltaTable(table.path(self.case.settings)).transaction_version(f"lakehouse-{job}-{marker['generation']}")
        return -1 if found is None else found

    def end(self) -> None:
        """Kill what is left."""
        if self.process is not None:
            if self.is_running():
                self.kill()
            self.dies()

    @property
    def _armed(self) -> Path:
        return self.case.folder / "armed"


def last_batch(folder: Path) -> int:
    """Highest number among the files of a log of Spark's, -1 without one."""
    return max((int(name) for name in os.listdir(folder) if name.isdigit()), default=-1) if folder.is_dir() else -1


def whole_parquet_files(folder: Path) -> set[Path]:
    """Data files in a table's folder whose end is there, whether the log knows them or not."""
    found = set()
    for entry in os.scandir(folder):
        if entry.name.endswith(".parquet") and not entry.name.startswith("."):
            with open(entry.path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 4))
                if file.read() == b"PAR1" and size > 4:
                    found.add(Path(entry.path))
    return found


def _stat(text: str) -> tuple[int, str, int]:
    """Process id, state and group; the name between may hold anything."""
    before, _, after = text.rpartition(")")
    fields = after.split()
    return int(before.split()[0]), fields[0], int(fields[2])
