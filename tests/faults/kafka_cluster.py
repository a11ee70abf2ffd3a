"""Kafka nodes that the embedded default does not have: three in one cluster, or one whose clients come through a proxy."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from lakehouse.local.kafka_admin import admin_client, cluster_metadata
from lakehouse.local.kafka_node import HOST, KafkaNode, Ports, choose_ports, java
from lakehouse.local.kafka_process import SupervisedProcess
from pipelines.lake.errors import TransientError
from pipelines.lake.resources import BROKER_JARS

_CLUSTER_ID = "dXNhZ2UtbGFrZWhvdXNlMQ"
_THREE = """
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
"""


@dataclass
class Cluster:
    """`count` nodes, each broker and controller, numbered from 1; `advertised` gives nodes another port for their clients.

    `options`: lines of the nodes' configuration.
    """

    folder: Path
    count: int
    advertised: Mapping[int, int] = field(default_factory=dict)
    options: str = ""
    ports: dict[int, Ports] = field(default_factory=dict)
    _processes: dict[int, SupervisedProcess] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = {number: choose_ports() for number in range(1, self.count + 1)}

    @property
    def bootstrap_servers(self) -> str:
        """Addresses at which clients begin."""
        return ",".join(f"{HOST}:{self.advertised.get(number, ports.broker)}" for number, ports in self.ports.items())

    def __enter__(self) -> Self:
        for number in self.ports:
            self._prepare(number)
        try:
            for number in self.ports:
                self.start(number)
            self._await_all()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def start(self, number: int) -> None:
        """Start a node; it goes on with its data."""
        node = self._node(number)
        self._processes[number] = SupervisedProcess.launch(node.command(), output=node.console, releasable=False)

    def kill(self, number: int) -> None:
        """End a node by SIGKILL."""
        self._processes.pop(number).kill()

    def _node(self, number: int) -> KafkaNode:
        return KafkaNode(self.folder / f"node-{number}", BROKER_JARS, 256)

    def _prepare(self, number: int) -> None:
        node = self._node(number)
        node.prepare_folder()
        node.write_config(self.ports[number])
        voters = ",".join(f"{one}@{HOST}:{ports.controller}" for one, ports in self.ports.items())
        more = f"\nnode.id={number}\ncontroller.quorum.voters={voters}\n"
        if number in self.advertised:
            more += f"advertised.listeners=PLAINTEXT://{HOST}:{self.advertised[number]}\n"
        if self.count > 1:
            more += _THREE
        more += self.options
        # Of two lines for a key Kafka takes the last.
        node.config.write_text(node.config.read_text(encoding="utf-8") + more, encoding="utf-8")
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER_ID, "--config", str(node.config)]
        quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        subprocess.run([java(), *quick, "-cp", f"{BROKER_JARS}/*", *tool], check=True, capture_output=True, timeout=120)

    def _await_all(self, seconds: float = 90) -> None:
        where = ",".join(f"{HOST}:{ports.broker}" for ports in self.ports.values())
        admin, deadline = admin_client(where), time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if len(cluster_metadata(admin, where, timeout=1).brokers) == self.count:
                    return
            except TransientError:
                pass
            time.sleep(0.1)
        msg = f"{self.count} Kafka nodes are not up after {seconds:g} s; see {self.folder}/node-*/kafka.log"
        raise AssertionError(msg)

    def _end(self) -> None:
        for process in self._processes.values():
            process.end()
        self._processes.clear()
