"""The embedded broker, real processes throughout: how it starts, stops, goes on, and dies with its parent."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from lakehouse.local import kafka_node
from lakehouse.local.kafka_admin import ensure_topic, topic_offsets
from lakehouse.local.kafka_broker import BrokerRunningError, EmbeddedBroker, use_broker
from lakehouse.local.kafka_process import command_line_of
from lakehouse.local.kafka_state import BrokerState, running_broker, state_file, write_state
from pipelines.lake.errors import TransientError, UsageError

STARTS_WITHIN = 30.0
"""Some 3 s on a quiet machine; the tests may share it."""


def send(bootstrap_servers: str, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": "all"})
    for number in range(count):
        producer.produce(topic, value=str(number).encode(), partition=0, timestamp=1_000_000_000_000)
    assert producer.flush(30) == 0


def wait_until_gone(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while command_line_of(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not command_line_of(pid)


def holder_of(state_dir: Path) -> subprocess.Popen[str]:
    """A parent process that holds a broker in a `with` block and says its pid."""
    code = (
        "import sys, time; from pathlib import Path; from lakehouse.local.kafka_broker import EmbeddedBroker\n"
        f"with EmbeddedBroker(Path({str(state_dir)!r})) as broker:\n"
        "    print(broker.state.pid, flush=True); time.sleep(600)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_data_and_address_survive_a_stop_and_a_kill(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    began = time.monotonic()
    with broker:
        assert time.monotonic() - began < STARTS_WITHIN
        assert running_broker(tmp_path) == broker.state
        address = broker.bootstrap_servers
        ensure_topic(address, "events", 2)
        send(address, "events", 3)
    assert running_broker(tmp_path) is None
    assert not state_file(tmp_path).exists()

    broker.start()
    assert broker.bootstrap_servers == address
    assert topic_offsets(address)[0].end_offsets == {0: 3, 1: 0}
    send(address, "events", 2)
    broker.kill()

    with broker:
        assert broker.bootstrap_servers == address
        assert topic_offsets(address)[0].end_offsets == {0: 5, 1: 0}


def test_broker_dies_with_its_killed_parent(tmp_path: Path) -> None:
    with holder_of(tmp_path) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert "kafka.Kafka" in command_line_of(pid)
        parent.kill()
    assert wait_until_gone(pid)
    assert running_broker(tmp_path) is None


def test_broker_outlives_the_thread_that_started_it_but_not_its_supervisor(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    thread = threading.Thread(target=broker.start)
    thread.start()
    thread.join()
    pid = broker.state.pid
    time.sleep(0.5)
    assert "kafka.Kafka" in command_line_of(pid)
    if sys.platform == "linux":
        status = Path(f"/proc/{pid}/status").read_text()
        os.kill(int(re.findall(r"^PPid:\s+(\d+)", status, re.MULTILINE)[0]), signal.SIGKILL)
        assert wait_until_gone(pid)
    broker.stop()
    broker.stop()


def test_second_start_on_the_same_folder_is_refused_and_use_broker_shares(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        with pytest.raises(BrokerRunningError, match=rf"already runs at {broker.bootstrap_servers}"):
            EmbeddedBroker(tmp_path).start()
        with use_broker(tmp_path) as shared:
            assert shared.bootstrap_servers == broker.bootstrap_servers
        assert running_broker(tmp_path) is not None
        EmbeddedBroker.attach(tmp_path).stop()
        assert running_broker(tmp_path) is None
    with pytest.raises(TransientError, match="lakehouse kafka start"):
        EmbeddedBroker.attach(tmp_path)


def test_two_started_at_once_get_ports_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are made to want the same ports, so that one of them has to find others."""
    wanted, choose = kafka_node.choose_ports(), kafka_node.choose_ports
    offers = [wanted, wanted]
    monkeypatch.setattr("lakehouse.local.kafka_broker.choose_ports", lambda: offers.pop() if offers else choose())
    brokers = [EmbeddedBroker(tmp_path / name) for name in "ab"]
    threads = [threading.Thread(target=broker.start) for broker in brokers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len({broker.bootstrap_servers for broker in brokers}) == 2
        for number, broker in enumerate(brokers):
            ensure_topic(broker.bootstrap_servers, f"only-in-{number}", 1)
        assert [[topic.topic for topic in topic_offsets(b.bootstrap_servers)] for b in brokers] == [["only-in-0"], ["only-in-1"]]
    finally:
        for broker in brokers:
            broker.stop()


def test_taken_port_of_the_last_start_is_given_up(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    with broker:
        taken = broker.bootstrap_servers
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", int(taken.rpartition(":")[2])))
        squatter.listen()
        with broker:
            assert broker.bootstrap_servers != taken
            assert ensure_topic(broker.bootstrap_servers, "events", 1) == 1


def test_state_of_a_dead_or_a_strange_process_is_no_broker(tmp_path: Path) -> None:
    state_file(tmp_path).parent.mkdir()
    config = str(state_file(tmp_path).with_name("server.properties"))
    stranger = BrokerState(os.getpid(), "127.0.0.1:1", "kafka.log", config)
    write_state(tmp_path, stranger)
    assert running_broker(tmp_path) is None
    state_file(tmp_path).write_text("{")
    assert running_broker(tmp_path) is None


def test_ports_lie_below_the_ephemeral_range() -> None:
    ports = kafka_node.choose_ports()
    assert ports.broker != ports.controller
    assert all(1024 < port < kafka_node._lowest_ephemeral_port() for port in (ports.broker, ports.controller))


def test_missing_jars_and_unwritable_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run `make setup`"):
        EmbeddedBroker(tmp_path, tmp_path / "no-jars").start()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"set `lake\.state_dir`"):
        EmbeddedBroker(tmp_path / "file").start()
    assert not (tmp_path / "kafka").exists()


def test_missing_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="Java 17 or newer is needed"):
        EmbeddedBroker(tmp_path).start()
