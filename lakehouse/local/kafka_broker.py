"""A real Kafka broker as the embedded default: one KRaft node as a child process, its data under the state folder."""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from lakehouse.local.kafka_admin import admin_client, cluster_metadata
from lakehouse.local.kafka_node import HOST, KafkaNode, Ports, choose_ports
from lakehouse.local.kafka_process import SupervisedProcess, end_by_pid
from lakehouse.local.kafka_state import BrokerState, kafka_folder, running_broker, state_file, write_state
from pipelines.lake.errors import LakehouseError, TransientError, UsageError
from pipelines.lake.logging import Log
from pipelines.lake.resources import BROKER_JARS
from pipelines.lake.storage.local_files import is_there
from pipelines.lake.surroundings import jvm_locale, locale_for_jvm

log = Log("kafka")

_BIND_FAILURES = ("Address already in use", "BindException", "failed to bind")
_BIND_ATTEMPTS = 5
_POLL_SECONDS = 0.05


class BrokerRunningError(UsageError):
    """Raised when a broker already runs on the state folder."""

    def __init__(self, state: BrokerState) -> None:
        self.state = state
        super().__init__(
            f"A Kafka broker already runs at {state.bootstrap_servers} (pid {state.pid}); use it, or `lakehouse kafka stop` it."
        )


class EmbeddedBroker:
    """One Kafka node on free loopback ports, with data, configuration and log in `<state_dir>/kafka`.

    As a context manager it lives as long as the block, and never longer than this process, however that ends.
    Data and, where they are still free, ports outlive it: the next start on the same folder goes on with both.
    """

    def __init__(self, state_dir: Path, jars: Path = BROKER_JARS, *, heap_mb: int = 512) -> None:
        self._state_dir = state_dir
        self._node = KafkaNode(kafka_folder(state_dir), jars, heap_mb)
        self._process: SupervisedProcess | None = None
        self._state: BrokerState | None = None

    @classmethod
    def attach(cls, state_dir: Path) -> Self:
        """Return the broker that already runs on `state_dir`; raise TransientError when there is none."""
        broker = cls(state_dir)
        broker._state = running_broker(state_dir)
        if broker._state is None:
            msg = f"No Kafka broker runs on {state_dir}; start it with `lakehouse kafka start`."
            raise TransientError(msg)
        return broker

    @property
    def state(self) -> BrokerState:
        """The running broker's pid, address and log; raises TransientError when it was not started."""
        if self._state is None:
            msg = f"The Kafka broker of {self._state_dir} is not started; call start() first."
            raise TransientError(msg)
        return self._state

    @property
    def bootstrap_servers(self) -> str:
        """The broker's address, `127.0.0.1:PORT`."""
        return self.state.bootstrap_servers

    def start(self, *, detach: bool = False, timeout: float = 90.0) -> Self:
        """Start the broker and return when it answers, some 3 s later; with `detach` it outlives this process.

        Raises BrokerRunningError when one runs on the folder, LakehouseError when it does not come up in `timeout` seconds.
        """
        self._node.prepare_folder()
        with _one_at_a_time(self._node.folder / "start.lock"):
            if (other := running_broker(self._state_dir)) is not None:
                raise BrokerRunningError(other)
            self._node.prepare_data()
            self._process, ports = self._launch(releasable=detach, timeout=timeout)
            address = f"{HOST}:{ports.broker}"
            self._state = BrokerState(self._process.pid, address, str(self._node.log), str(self._node.config))
            write_state(self._state_dir, self._state)
        if detach:
            self._process.release()
            self._process = None
        log.debug("broker started", bootstrap_servers=address, pid=self._state.pid)
        return self

    def stop(self) -> None:
        """Stop the broker cleanly; return when it is gone. Stopping a stopped one does nothing."""
        if self._process is not None:
            self._process.end()
        elif self._state is not None:
            end_by_pid(self._state.pid, self._state.config)
        self._forget()

    def kill(self) -> None:
        """End the broker by SIGKILL, as a crash would; the data stay for the next start."""
        if self._process is not None:
            self._process.kill()
        elif self._state is not None:
            end_by_pid(self._state.pid, self._state.config, first=signal.SIGKILL)
        self._forget()

    def __enter__(self) -> Self:
        return self if self._state is not None else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _launch(self, *, releasable: bool, timeout: float) -> tuple[SupervisedProcess, Ports]:
        """Start the process on the last ports, or on others while somebody has taken them."""
        ports = self._node.last_ports() or choose_ports()
        for _ in range(_BIND_ATTEMPTS):
            self._node.write_config(ports)
            log_size = self._node.log.stat().st_size if is_there(self._node.log) else 0
            with locale_for_jvm(jvm_locale([str(self._node.folder)])):
                process = SupervisedProcess.launch(self._node.command(), output=self._node.console, releasable=releasable)
            try:
                if self._wait_until_ready(process, ports, timeout):
                    return process, ports
            except BaseException:  # Ctrl-C as well: nothing stays behind
                process.end()
                raise
            process.end()
            if not self._ended_for_a_port(log_size):
                msg = f"The Kafka broker ended while it started; see {self._node.log} and {self._node.console}."
                raise LakehouseError(msg)
            ports = choose_ports()
        msg = f"The Kafka broker found no free ports in {_BIND_ATTEMPTS} attempts; see {self._node.log}."
        raise LakehouseError(msg)

    def _wait_until_ready(self, process: SupervisedProcess, ports: Ports, timeout: float) -> bool:
        """Wait until this node, not a stranger on its port, answers; False when the process ended."""
        address, cluster_id = f"{HOST}:{ports.broker}", self._node.cluster_id()
        admin = admin_client(address)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if process.has_ended():
                return False
            try:
                metadata = cluster_metadata(admin, address, timeout=0.5)
            except TransientError:
                pass
            else:
                if metadata.brokers and metadata.cluster_id == cluster_id:
                    return True
            time.sleep(_POLL_SECONDS)
        msg = f"The Kafka broker did not answer at {address} within {timeout:g} s; see {self._node.log}."
        raise LakehouseError(msg)

    def _ended_for_a_port(self, log_size: int) -> bool:
        text = self._node.console.read_text(encoding="utf-8", errors="replace")
        if is_there(self._node.log):
            with self._node.log.open("rb") as file:
                file.seek(min(log_size, self._node.log.stat().st_size))
                text += file.read().decode("utf-8", errors="replace")
        return any(sign in text for sign in _BIND_FAILURES)

    def _forget(self) -> None:
        self._process = self._state = None
        if running_broker(self._state_dir) is None:
            state_file(self._state_dir).unlink(missing_ok=True)


@contextmanager
def use_broker(state_dir: Path, jars: Path = BROKER_JARS) -> Iterator[EmbeddedBroker]:
    """Yield the broker that runs on `state_dir`, and leave it running; or start one, and stop it after the block."""
    if running_broker(state_dir) is not None:
        yield EmbeddedBroker.attach(state_dir)
        return
    with EmbeddedBroker(state_dir, jars) as broker:
        yield broker


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Hold a file lock, so that of two starts on a folder the second finds the first one's broker."""
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
