"""The lake of the fault tests, and what is done to it, for playbooks that are followed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.producer import produce_events
from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.lake.kafka.options import bootstrap_servers
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, SILVER, TableName
from tests.faults.conftest import DAY, LakeCase, fault_seed, lake_case
from tests.playbooks.pages import read_page
from tests.playbooks.runner import Followed, follow

__all__ = ["fault_seed", "lake_case"]

EVENTS = int(os.environ.get("LAKEHOUSE_TEST_EVENTS", "3000"))
"""Events in the lakes whose recovery depends on how many there are; the goals are set for 1,000,000."""
_MANY = 50_000


@dataclass(frozen=True)
class Patient:
    """A lake to which something happens, and who follows the playbook then."""

    case: LakeCase
    spark: SparkSession
    say: Callable[[str], None]
    note: Callable[[str, object], None]

    def with_settings(self, **sections: Any) -> Patient:
        """The same lake with some settings changed, in its file too."""
        tree = yaml.safe_load(self.case.config.read_text())
        for name, value in sections.items():
            tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
        self.case.config.write_text(yaml.safe_dump(tree))
        return replace(self, case=replace(self.case, settings=load_settings(self.case.config, environ={})))

    @property
    def checkpoints(self) -> Path:
        """Folder of all checkpoints."""
        return Path(self.case.settings.lake.checkpoints)

    def path(self, table: TableName) -> str:
        """Folder of a table."""
        return table.path(self.case.settings)

    def produce(self, count: int, seed: int, *, start: datetime = DAY, mix: Mix | None = None) -> None:
        """Send events, which the op ledger knows."""
        plan = ProducePlan(count=count, seed=seed, start_time=start, span_seconds=3600.0, mix=mix or Mix())
        produce_events(self.case.settings, plan, self.case.folder / "op_ledger")

    def send(self, event: dict[str, Any]) -> None:
        """Send an event that the op ledger does not know."""
        producer = Producer({"bootstrap.servers": bootstrap_servers(self.case.settings)})
        producer.produce(self.case.settings.kafka.topic, json.dumps(event).encode(), timestamp=int(DAY.timestamp() * 1000))
        assert producer.flush(10) == 0

    def run(self, *names: str) -> None:
        """Run streams to their end; their checkpoints are free when this returns, as after a driver that has ended."""
        run_to_end(self.spark, self.case.settings, names or list(STREAMS), threading.Event())

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `lakehouse WORDS` as a process of its own, whatever it ends with."""
        line = [sys.executable, "-m", "lakehouse", *words, "--config", str(self.case.config)]
        environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
        return subprocess.run(line, env=environ, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)

    def delete_records(self, partition: int, before: int) -> None:
        """Let Kafka's retention pass over the records before an offset."""
        admin = AdminClient({"bootstrap.servers": bootstrap_servers(self.case.settings)})
        place = TopicPartition(self.case.settings.kafka.topic, partition, before)
        admin.delete_records([place])[TopicPartition(place.topic, partition)].result(10)

    def follow(self, name: str, **variables: str) -> Followed:
        """Follow a playbook from the moment on at which the fault is over, and say how long it took."""
        page = read_page(name)
        known = {"CONFIG": str(self.case.config), "LAKE": str(self.case.folder)}
        found = follow(page, {**{key: value for key, value in known.items() if key in page.variables}, **variables})
        self.say(str(found))
        seconds = (found.recovery, found.diagnosis, found.verify)
        self.note("playbook", [name, DeltaTable(self.path(BRONZE)).count(), *(round(one, 1) for one in seconds)])
        return found

    def broken_promises(self) -> set[str]:
        """Invariants that do not hold, by the independent checker; I6 needs a replay to compare with."""
        verdicts = self.case.verdicts()
        assert verdicts.pop("I6") == "not checked"
        return {id_ for id_, verdict in verdicts.items() if verdict != "holds"}


def restore_by_hand(sick: Patient) -> int:
    """Take Silver's last batch back as somebody does who knows RESTORE and not `lakehouse rollback`; return the version."""
    rows = Ledger(sick.case.settings).batches("silver")
    versions = [row.versions.get(str(SILVER)) for row in rows]
    written: list[int] = sorted(version for version in versions if version is not None)
    DeltaTable(sick.path(SILVER)).restore(written[-2])
    return written[-2]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Write a line that is seen although the test passes."""

    def write(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return write


@pytest.fixture
def patient(
    spark: SparkSession,
    lake_case: Callable[[int], LakeCase],
    say: Callable[[str], None],
    record_property: Callable[[str, object], None],
) -> Callable[[int], Patient]:
    """Make a lake with so many events in its topic, nothing of them read yet."""

    def make(events: int) -> Patient:
        found = Patient(lake_case(events), spark, say, record_property)
        if events < _MANY:
            return found
        # Batches and memory as they are by default: the fault tests' own are for a few thousand events.
        sizes = {"bronze": {"max_offsets_per_trigger": 500_000}, "silver": {"max_bytes_per_trigger": "64m"}}
        return found.with_settings(**sizes, spark={"spark.driver.memory": "4g"})

    return make
