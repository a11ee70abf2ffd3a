"""Checkpoints as Spark 4.2 writes them, tables that fit them, a topic of a real broker and a real S3 server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from pipelines.lake.contract.contract import CONTRACTS
from pipelines.lake.errors import LakehouseError
from pipelines.lake.kafka.topic import ask_topic
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, DLQ, GOLD_HOURLY, SILVER, TableName

TOPIC_ID = "topic-id-of-the-lake"
GENERATION = "0123456789ab"
_COORDINATES = pa.schema([("_kafka_topic", pa.string()), ("_kafka_partition", pa.int32()), ("_kafka_offset", pa.int64())])
_ROW = pa.schema([("n", pa.int64())])
_SOURCES = {"bronze": BRONZE, "silver": BRONZE, "gold": SILVER}
_TARGETS = {"bronze": BRONZE, "silver": SILVER, "gold": GOLD_HOURLY}
End = Mapping[int, int] | tuple[int, int]


@dataclass
class CheckpointLake:
    """A lake in `folder` whose tables, ledger and checkpoints a test writes as it needs them."""

    folder: Path
    kafka: dict[str, str] = field(default_factory=lambda: {"bootstrap_servers": "127.0.0.1:1", "topic": "t"})
    topic_id: str = TOPIC_ID
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def tree(self) -> dict[str, Any]:
        lake = {"root": f"{self.folder}/lake", "checkpoints": f"{self.folder}/checkpoints", "state_dir": str(self.folder)}
        return {"lake": lake, "kafka": self.kafka, **self.more}

    @property
    def settings(self) -> Settings:
        return load_settings(None, environ={}, overrides=self.tree)

    def config(self) -> str:
        path = self.folder / "conf.yaml"
        path.write_text(json.dumps(self.tree))
        return str(path)

    def table(self, name: TableName) -> DeltaTable:
        """The table, made on the way: version 0 is empty."""
        path = Path(name.path(self.settings))
        if not path.exists():
            path.mkdir(parents=True)
            properties = {"lakehouse.topicId": self.topic_id} if name == BRONZE else {}
            # Properties of the project's own are refused by `configuration`.
            fixed = {key: value for key, value in CONTRACTS[name].fixed.items() if value == "true"}
            DeltaTable.create(path, _COORDINATES if name == BRONZE else _ROW, name=str(name), configuration=fixed)
            if properties:
                DeltaTable(path).alter.set_table_properties(properties, raise_if_not_exists=False)
        return DeltaTable(path)

    def append(
        self, name: TableName, rows: Sequence[tuple[int, int]] = ((0, 0),), *, batch: int | None = None, part: str | None = None
    ) -> int:
        """Commit rows (of Bronze: partition, offset) as a batch of GENERATION, and return the version.

        `part` of the app id: `dlq` for the dead letters unless given.
        """
        self.table(name)
        job = "silver" if name in (SILVER, DLQ) else name.layer
        part = f"-{part or 'dlq'}" if name == DLQ else ""
        ids = [] if batch is None else [Transaction(f"lakehouse-{job}{part}-{GENERATION}", batch)]
        if name == BRONZE:
            data = [{"_kafka_topic": "t", "_kafka_partition": one, "_kafka_offset": offset} for one, offset in rows]
        else:
            data = [{"n": number} for number, _ in rows]
        schema = _COORDINATES if name == BRONZE else _ROW
        path = name.path(self.settings)
        write_deltalake(
            path, pa.Table.from_pylist(data, schema), mode="append", commit_properties=CommitProperties(app_transactions=ids)
        )
        return DeltaTable(path).version()

    def others_commit(self, name: TableName, times: int) -> None:
        """Commits of somebody else that change no row, such as compactions."""
        log, first = Path(name.path(self.settings)) / "_delta_log", self.table(name).version() + 1
        for number in range(first, first + times):
            (log / f"{number:020d}.json").write_text('{"commitInfo":{"operation":"OPTIMIZE"}}\n', encoding="utf-8")

    def record(
        self, job: str, batch: int, offsets: Mapping[str, list[int]], *, generation: str = GENERATION, **more: Any
    ) -> None:
        """Write a row of the ledger."""
        Ledger(self.settings).record(BatchRow(job, generation, batch, offsets, **more))

    def checkpoint(
        self,
        job: str,
        ends: Sequence[End],
        *,
        commits: Sequence[int] | None = None,
        name: str = "g1",
        initial: Mapping[int, int] | None = None,
        starting: str = "",
    ) -> Path:
        """Write a checkpoint whose batches end at `ends`: offsets of partitions, or version and index of a table."""
        path = self.folder / "checkpoints" / job / name
        for sub in ("offsets", "commits", "sources/0"):
            (path / sub).mkdir(parents=True)
        source = self.topic_id if job == "bronze" else str(self.table(_SOURCES[job]).metadata().id)
        target = str(self.table(_TARGETS[job]).metadata().id)
        marker = {"job": job, "generation": GENERATION, "source": source, "target": target, "starting": starting}
        (path / "lakehouse.json").write_text(json.dumps(marker))
        (path / "metadata").write_text('{"id":"c7048d4d-471b-43e1-a67b-828676250c83"}')
        if job == "bronze":
            (path / "sources/0/0").write_text("\0v1\n" + self._position(str(source), initial or {0: 0}))
        for batch, end in enumerate(ends):
            about = {"batchWatermarkMs": 0, "batchTimestampMs": 1_795_275_097_305, "conf": {"spark.sql.shuffle.partitions": "2"}}
            (path / f"offsets/{batch}").write_text(f"v1\n{json.dumps(about)}\n{self._position(str(source), end)}")
        for batch in range(len(ends)) if commits is None else commits:
            (path / f"commits/{batch}").write_text('v1\n{"nextBatchWatermarkMs":0}')
        return path

    def _position(self, source: str, end: End) -> str:
        if isinstance(end, tuple):
            version, index = end
            tree: dict[str, Any] = {"sourceVersion": 1, "reservoirId": source, "reservoirVersion": version, "index": index}
            return json.dumps({**tree, "isStartingVersion": False})
        return json.dumps({self.kafka["topic"]: {str(partition): offset for partition, offset in end.items()}})


@pytest.fixture
def lake(tmp_path: Path) -> CheckpointLake:
    """A lake without anything, and without Kafka."""
    return CheckpointLake(tmp_path)


@dataclass
class Topic:
    """A topic of the test's own on the running broker."""

    bootstrap_servers: str
    name: str
    partitions: int

    def __post_init__(self) -> None:
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        self.admin.create_topics([NewTopic(self.name, self.partitions, 1)])[self.name].result(30)

    def send(self, partition: int, count: int) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers})
        for number in range(count):
            producer.produce(self.name, value=str(number).encode(), partition=partition)
        assert producer.flush(30) == 0

    def forget(self, partition: int, before: int) -> None:
        """Delete the records below an offset, as retention does."""
        place = TopicPartition(self.name, partition, before)
        self.admin.delete_records([place])[place].result(30)


@pytest.fixture
def on_topic(broker: Any) -> Callable[..., Topic]:
    """Makes a topic, and the lake one of this topic; call it before the lake has a table."""

    def make(lake: CheckpointLake, partitions: int = 2) -> Topic:
        topic = Topic(broker.bootstrap_servers, f"checkpoints-{uuid4().hex[:8]}", partitions)
        lake.kafka = {"bootstrap_servers": broker.bootstrap_servers, "topic": topic.name}
        for _ in range(50):  # a new topic's leaders take a moment
            try:
                lake.topic_id = ask_topic(lake.settings, 10).topic_id
                break
            except LakehouseError:
                time.sleep(0.2)
        assert lake.topic_id != TOPIC_ID
        return topic

    return make
