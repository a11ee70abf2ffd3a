"""The files of the embedded Kafka node: its folder, its configuration, its ports and its first formatting."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import socket
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.storage.local_files import files_in, is_there, names_in
from pipelines.lake.surroundings import jvm_locale, locale_for_jvm, raise_file_limit

HOST = "127.0.0.1"
_LISTENERS = re.compile(rf"^listeners=PLAINTEXT://{HOST}:(\d+),CONTROLLER://{HOST}:(\d+)$", re.MULTILINE)

_SERVER = """\
# Written at every start; changes are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller}
controller.listener.names=CONTROLLER
log.dirs={data}
num.network.threads=2
num.io.threads=4
# One node holds the only copy.
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
# A topic that nobody made is a mistake in a name.
auto.create.topics.enable=false
# Record timestamps are the event's own story: old ones must not expire, future ones must not be refused.
log.message.timestamp.type=CreateTime
log.message.timestamp.after.max.ms=9223372036854775807
log.retention.ms=-1
# The default of 128 MiB is a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
# After a kill the node waits for its former self's session to run out: 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

_LOG4J = """\
rootLogger.level=INFO
rootLogger.appenderRef.file.ref=file
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{{ISO8601}} %p %m (%c)%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
"""


@dataclass(frozen=True)
class Ports:
    """The two loopback ports of a node."""

    broker: int
    controller: int


@dataclass(frozen=True)
class KafkaNode:
    """Files of one node under `folder` (absolute); the data outlive the process, the configuration does not."""

    folder: Path
    jars: Path
    heap_mb: int

    @property
    def data(self) -> Path:
        """Folder of topics and cluster metadata."""
        return self.folder / "data"

    @property
    def config(self) -> Path:
        """The configuration file; its path in a command line marks a process as this node."""
        return self.folder / "server.properties"

    @property
    def log(self) -> Path:
        """The broker's log file, at most three of 10 MB."""
        return self.folder / "kafka.log"

    @property
    def console(self) -> Path:
        """What the JVM itself had to say since the last start."""
        return self.folder / "console.log"

    def command(self) -> list[str]:
        """Return the command line that runs the node."""
        # Serial GC: two cores are shared with Spark, and a broker's data pass outside the heap.
        jvm = [f"-Xmx{self.heap_mb}m", "-Xms128m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData"]
        log4j = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return [java(), *jvm, "-Djava.awt.headless=true", log4j, "-cp", f"{self.jars}/*", "kafka.Kafka", str(self.config)]

    def last_ports(self) -> Ports | None:
        """Return the ports of the last start, so that clients find the broker again."""
        found = _LISTENERS.search(self.config.read_text(encoding="utf-8")) if is_there(self.config) else None
        return Ports(int(found[1]), int(found[2])) if found else None

    def write_config(self, ports: Ports) -> None:
        """Write the configuration of the next start."""
        text = _SERVER.format(host=HOST, broker=ports.broker, controller=ports.controller, data=_property(self.data))
        self.config.write_text(text, encoding="utf-8")
        (self.folder / "log4j2.properties").write_text(_LOG4J.format(log=_property(self.log)), encoding="utf-8")
        self.console.write_bytes(b"")

    def cluster_id(self) -> str:
        """Return the identity of the data; a broker that answers with another one is not this node."""
        found = re.search(r"^cluster\.id=(.+)$", (self.data / "meta.properties").read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            msg = f"The Kafka data in {self.data} have no cluster id; remove the folder to start with an empty broker."
            raise LakehouseError(msg)
        return found[1].strip()

    def prepare_folder(self) -> None:
        """Make the folder; raise UsageError when the jars are missing, it cannot be made, or a JVM could not use it."""
        raise_file_limit()
        jvm_locale([str(self.folder)])
        if not files_in(self.jars, "kafka_*.jar"):
            msg = f"The broker's jars are not in {self.jars}; run `make setup` in the project's folder."
            raise UsageError(msg)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"The broker's folder {self.folder} cannot be made ({error.strerror}); set `lake.state_dir` to a writable one."
            raise UsageError(msg) from None

    def prepare_data(self) -> None:
        """Format the data where there are none (about a second, once)."""
        if not is_there(self.data / "meta.properties"):
            self._format()

    def _format(self) -> None:
        """Format beside the data's place, then move: a kill leaves nothing half-made."""
        fresh, config = self.folder / "data.new", self.folder / "format.properties"
        shutil.rmtree(fresh, ignore_errors=True)
        config.write_text(_SERVER.format(host=HOST, broker=1, controller=2, data=_property(fresh)), encoding="utf-8")
        quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"]
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", _new_cluster_id(), "--config", str(config)]
        with locale_for_jvm(jvm_locale([str(self.folder)])):
            done = subprocess.run(
                [java(), *quick, "-cp", f"{self.jars}/*", *tool], capture_output=True, text=True, check=False, timeout=120
            )
        self.console.write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            msg = f"Kafka's data folder could not be formatted (see {self.console}); Java 17 or newer is needed."
            raise LakehouseError(msg)
        if is_there(self.data) and not names_in(self.data):
            self.data.rmdir()
        fresh.rename(self.data)
        config.unlink()


def _property(path: Path) -> str:
    """A path as a value in a properties file, which Java reads as Latin-1 with escapes."""
    return re.sub(
        r"[^ -~]|\\",
        lambda found: "".join(f"\\u{unit:04x}" for unit in memoryview(found[0].encode("utf-16-le")).cast("H")),
        str(path),
    )


def java() -> str:
    """Return the `java` to run: of JAVA_HOME as Spark and Maven do, else the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        msg = f"No java found {'in JAVA_HOME' if home else 'on PATH'}, Java 17 or newer is needed; run `make setup`."
        raise UsageError(msg)
    return found


def choose_ports() -> Ports:
    """Return two free ports below the system's ephemeral range.

    In that range a client that retries a stopped broker may be given the broker's port as its own, and keep it.
    """
    top = _lowest_ephemeral_port()
    ports: set[int] = set()
    for _ in range(1000):
        port = 10_000 + secrets.randbelow(top - 10_000)
        if _is_free(port):
            ports.add(port)
        if len(ports) == len(("broker", "controller")):
            return Ports(*ports)
    msg = f"No free port found on {HOST} between 10000 and {top}; stop other servers."
    raise LakehouseError(msg)


def _lowest_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        first = 49_152
    return first if first > 11_000 else 32_768


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Kafka binds: a port of connections that just ended is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _new_cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):  # Kafka's tool would take it for an option.
            return text
