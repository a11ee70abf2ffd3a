"""What the tests of causes share: the table of the failure matrix, and a lake that a cause befalls."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Producer
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.findings import Finding
from lakehouse.operations.doctor.reading import read_facts
from lakehouse.operations.streams import STREAMS
from pipelines.lake.checkpoint.failures import BatchFailures
from pipelines.lake.errors import LakehouseError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.tables import BRONZE, GOLD_HOURLY, SILVER, TableName
from pipelines.lake.traces import keep_traces_in
from pipelines.runtime.stream_life import AVAILABLE_NOW, await_query
from tests.pipelines.conftest import Lake, event, record
from tests.playbooks.pages import FOLDER, read_page
from tests.playbooks.runner import run_shell
from tests.rebuilds import rebuild_and_swap

Copy = Callable[[Path, Callable[[Path], None]], None]
_STARTS_SPARK = ("lakehouse up", "lakehouse rebuild", "lakehouse dlq replay")
_PAGE = r"(?:\[([\w-]+)\]\(\2\.md\)|-)"
_ROW = re.compile(rf"^\| `(\w+)` \| [^|]+ \| {_PAGE} \| ([\w-]+) \|", re.MULTILINE)
_TEXT = (FOLDER / "failure-matrix.md").read_text(encoding="utf-8")
TABLE = {found[1]: (found[2] or "-", found[3]) for found in _ROW.finditer(_TEXT)}
"""For each cause the page that the error names, `-` where none is named, and that of the doctor's finding, `-` where it sees
nothing of the cause."""


@dataclass
class Case:
    """A lake that a cause befalls."""

    lake: Lake

    def __post_init__(self) -> None:
        keep_traces_in(str(self.lake.folder))
        self.change({})

    @property
    def config(self) -> Path:
        """Settings file of the lake, for commands."""
        return self.lake.folder / "settings.yaml"

    def change(self, settings: dict[str, Any]) -> None:
        """Change settings, in the file too."""
        self.lake.changes = {**self.lake.changes, **settings}
        tree = self.lake.settings.model_dump(mode="json", include={"lake", "schemas_dir", "kafka", "breaker"})
        self.config.write_text(yaml.safe_dump(tree))

    def checkpoint(self, job: str, generation: str = "g1") -> Path:
        """Folder of a checkpoint."""
        return Path(self.lake.settings.lake.checkpoints) / job / generation

    def run(self, job: str = "silver", generation: str = "g1") -> LakehouseError | None:
        """Run a stream to its end as a job does; give the error that ends it."""
        path = str(self.checkpoint(job, generation))
        try:
            query = STREAMS[job](self.lake.spark, self.lake.settings, checkpoint_path=path, trigger=AVAILABLE_NOW)
            await_query(query, threading.Event())
        except Exception as error:
            return BatchFailures(job, path).note(error).error()
        return None

    def doctor(self) -> list[Finding]:
        """The doctor's findings, but for a Kafka that is not there, and rows of Bronze that the test wrote by hand."""
        found = diagnose(read_facts(self.lake.settings, str(self.config)))
        by_hand = [one for one in found if one.id == "rows-by-hand" and str(BRONZE) in one.title]
        return [one for one in found if not one.id.startswith("kafka-") and one not in by_hand]

    def pages_of_doctor(self) -> set[str]:
        """Pages of the doctor's findings."""
        return {one.playbook for one in self.doctor()}

    def follow(self, page: str, block: int = 0, **variables: str) -> None:
        """Run a block of the page's mitigation as it is written, but for what starts Spark."""
        found = [one for one in read_page(page).blocks if one.section == "Mitigation"][block]
        lines = [line for line in found.code.splitlines() if not line.startswith(_STARTS_SPARK)]
        assert lines, "nothing of the block is run"
        setup = [f"export {name}='{value}'" for name, value in {"CONFIG": str(self.config), **variables}.items()]
        done = run_shell("\n".join([*setup, *lines]), {})
        assert done.returncode == 0, done.stdout

    def add(self, *names: str) -> None:
        """Write events into Bronze by hand."""
        path = self.lake.path(BRONZE)
        known = DeltaTable(path).version() + 1 if Path(path).exists() else 0
        self.lake.append(*(record(event(event_id=name), known * 10 + n) for n, name in enumerate(names)))

    def send(self, *names: str) -> None:
        """Send events to Kafka."""
        kafka = self.lake.settings.kafka
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        for name in names:
            producer.produce(kafka.topic, json.dumps(event(event_id=name)).encode(), partition=0)
        assert producer.flush(10) == 0

    def sent_to_bronze(self) -> list[str]:
        """Ids of Bronze's events, in order."""
        return sorted(json.loads(row["_raw_value"])["event_id"] for row in self.lake.rows(BRONZE, "_raw_value"))

    def is_well(self, *ids: str) -> bool:
        """Whether Silver has exactly these events, each once."""
        return sorted(row["event_id"] for row in self.lake.rows(SILVER, "event_id")) == sorted(ids)

    def events_in_gold(self) -> int:
        """Events that Gold has counted."""
        return sum(row["event_count"] for row in self.lake.rows(GOLD_HOURLY))

    def newest(self, table: TableName) -> Path:
        """The newest data file of a table."""
        paths = [Path(path) for path in DeltaTable(self.lake.path(table)).file_uris()]
        return max(paths, key=lambda path: path.stat().st_mtime)

    def forget(self) -> None:
        """Let the session read the tables' logs anew, as another process does."""
        self.lake.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]

    def read_schemas_anew(self) -> None:
        """Go on in a session that has read the schema files as they are now, as a process that is started anew does."""
        schemas, session = read_schemas(self.lake.settings.schemas_dir), self.lake.spark.newSession()
        session.conf.set("spark.sql.catalog.events.fields", schemas.ddl())
        session.conf.set("spark.sql.catalog.events.schemas", schemas.rules())
        self.lake.spark = session

    def rebuild_gold(self) -> None:
        """What `lakehouse rebuild gold --swap` does, in this session."""
        rebuild_and_swap(self.lake.spark, self.lake.settings, "gold")


def case_with_rows(spark: SparkSession, folder: Path, made_once: Copy) -> Case:
    """A lake whose Silver and Gold have read two events; a third waits in Bronze."""

    def make(first: Path) -> None:
        made = Case(Lake(spark, first))
        made.add("a", "b")
        made.lake.run_silver()
        made.lake.run_gold()
        made.add("c")

    made_once(folder, make)
    return Case(Lake(spark, folder))


def case_with_topic(spark: SparkSession, folder: Path, address: str) -> Case:
    """A lake whose Bronze has read two events from a topic of its own."""
    topic = f"causes-{folder.name}"
    ensure_topic(address, topic, 1)
    case = Case(Lake(spark, folder, {"kafka.bootstrap_servers": address, "kafka.topic": topic}))
    case.send("a", "b")
    assert case.run("bronze") is None
    return case


def named(error: LakehouseError | None, cause: str, doctor: Iterable[str] = ()) -> None:
    """The error names the table's page, and so does the doctor; where the table has a dash, none does."""
    page, doctors = TABLE[cause]
    assert (error.playbook if error is not None else None) == (None if page == "-" else page), str(error)
    assert str(error).count("\n") == 0
    seen = set(doctor)
    assert page not in seen if doctors == "-" else doctors in seen, seen


def children(pid: int, program: str) -> list[int]:
    """The processes of a program that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [int(child) for child in found if program in Path(f"/proc/{child}/comm").read_text(encoding="utf-8")]
