"""A lake of the fault suite at rest: filled, with records in Kafka that nobody has read, while no driver runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.commands.cli import main
from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.bronze import bronze_ingestion
from pipelines.gold import gold_aggregation
from pipelines.lake.tables import ALL_TABLES, TableName
from pipelines.runtime.stream_life import AVAILABLE_NOW
from pipelines.silver import silver_processing
from tests.faults.conftest import LakeCase
from tests.faults.driver import Driver, last_batch
from tests.faults.evidence import Evidence

UNREAD = 600
JOBS = {"bronze": bronze_ingestion, "silver": silver_processing, "gold": gold_aggregation}


@dataclass(frozen=True)
class Lake:
    """A lake at rest; jobs run to their end in this process, as new drivers that know nothing of the one before."""

    case: LakeCase
    spark: SparkSession
    capsys: pytest.CaptureFixture[str]

    def fill(self, *names: str) -> None:
        self._forget()
        run_to_end(self.spark, self.case.settings, names or list(STREAMS), threading.Event())
        self._forget()

    def job(self, name: str, *flags: str) -> tuple[int, str]:
        """Exit code and last line of a job's script."""
        self._forget()
        self.capsys.readouterr()
        code = JOBS[name].main(["--config", str(self.case.config), "--trigger", AVAILABLE_NOW, *flags])
        self._forget()
        return code, self.capsys.readouterr().err.rstrip().rpartition("\n")[2]

    def command(self, *args: str) -> tuple[int, str]:
        """Exit code and output of a `lakehouse` command that needs no JVM."""
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*args, "--config", str(self.case.config)])
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    def restart(self, evidence: Evidence, *before: list[str]) -> None:
        """Commands of the playbook and then a driver of its own, until no layer lags; all of it is the recovery."""
        with evidence.recovery():
            for args in before:
                assert self.command(*args)[0] == 0
            self.start_to_end()

    def start_to_end(self) -> None:
        """Run all streams to their end in a driver of its own."""
        driver = Driver(self.case, 0)
        driver.start("--trigger", AVAILABLE_NOW)
        assert driver.dies(200) == 0, driver.said()

    def files(self, table: TableName) -> list[Path]:
        """Data files of a table's current version."""
        return [Path(uri.removeprefix("file://")) for uri in DeltaTable(table.path(self.case.settings)).file_uris()]

    def commit(self, table: TableName, version: int) -> Path:
        """Commit file of a version."""
        return Path(table.path(self.case.settings)) / "_delta_log" / f"{version:020d}.json"

    def log(self, *tables: TableName) -> list[str]:
        """Commit files of tables (default: all), and with them whether anybody wrote."""
        paths = (Path(table.path(self.case.settings)) / "_delta_log" for table in tables or ALL_TABLES)
        return sorted(str(path) for folder in paths for path in folder.glob("*.json"))

    def newest(self, job: str, kind: str) -> Path:
        """Newest file of a checkpoint's `offsets` or `commits`."""
        folder = Path(self.case.settings.lake.checkpoints) / job / "g1" / kind
        return folder / str(last_batch(folder))

    def _forget(self) -> None:
        """Give up what this process's JVM remembers of the tables."""
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]


def fill(case: LakeCase, spark: SparkSession, capsys: pytest.CaptureFixture[str], seed: int) -> Lake:
    """A lake with a few batches in each layer, and UNREAD records in Kafka."""
    lake = Lake(case, spark, capsys)
    lake.fill()
    case.produce(300, seed=100_000 + seed)
    lake.fill()
    case.produce(UNREAD, seed=200_000 + seed)
    return lake
