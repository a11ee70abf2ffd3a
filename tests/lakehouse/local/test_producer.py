from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from lakehouse.local import sender
from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.local.producer import produce_events
from lakehouse.proof.op_ledger import fates_sql
from pipelines.lake.errors import LakehouseError, TransientError, UsageError
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from tests.signals import signals_of_a_terminal

START = datetime(2026, 1, 28, tzinfo=UTC)
PARTITIONS = 3
MIX = Mix(late=0.05, duplicate=0.1, malformed=0.1, tombstone=0.05, conflict=0.02)
PLAN = ProducePlan(count=12_000, seed=11, start_time=START, mix=MIX)
MakeSettings = Callable[..., Settings]
Record = tuple[int, int, int, bytes | None, bytes | None]


@pytest.fixture
def make_settings(broker: EmbeddedBroker, tmp_path: Path, request: pytest.FixtureRequest) -> MakeSettings:
    """Settings for a new topic of this test."""

    def make(config: dict[str, str] | None = None, **overrides: Any) -> Settings:
        topic = f"produce-{re.sub(r'[^a-zA-Z0-9]+', '-', request.node.name)}"[:200]
        ensure_topic(broker.bootstrap_servers, topic, PARTITIONS, config)
        known = {
            "kafka.bootstrap_servers": broker.bootstrap_servers,
            "kafka.topic": topic,
            "lake.state_dir": str(tmp_path / "state"),
        }
        return load_settings(None, environ={}, overrides={**known, **overrides})

    return make


def consume(settings: Settings) -> list[Record]:
    """All records of the topic: partition, offset, timestamp, key, value."""
    config = {"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": "t", "enable.auto.commit": "false"}
    consumer = Consumer(config)
    records: list[Record] = []
    try:
        parts = [TopicPartition(settings.kafka.topic, part, 0) for part in range(PARTITIONS)]
        wanted = sum(consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts)
        consumer.assign(parts)
        while len(records) < wanted:
            for message in consumer.consume(min(5000, wanted - len(records)), timeout=10):
                assert message.error() is None
                records.append((message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value()))  # type: ignore[arg-type]
    finally:
        consumer.close()
    return sorted(records, key=lambda record: record[:2])


def ledger(folder: Path, columns: str) -> list[Any]:
    return duckdb.connect().execute(f'SELECT {columns} FROM ({fates_sql(folder)}) ORDER BY "partition", "offset"').fetchall()  # noqa: S608


def fingerprint(data: bytes | None) -> str | None:
    return None if data is None else hashlib.md5(data).hexdigest()  # noqa: S324


def assert_ledger_equals_topic(settings: Settings, folder: Path) -> int:
    sent = ledger(folder, '"partition", "offset", kafka_timestamp_ms, key_md5, value_md5, value_size')
    found = [
        (part, at, ms, fingerprint(key), fingerprint(value), None if value is None else len(value))
        for part, at, ms, key, value in consume(settings)
    ]
    assert sent == found
    return len(sent)


def test_a_consumer_reads_exactly_what_the_ledger_says_at_its_coordinates(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_PART_ROWS", 5000)
    settings, totals = make_settings(), list[int]()
    summary = produce_events(settings, PLAN, tmp_path / "ledger", totals.append)
    assert (summary.acked, summary.failed, summary.interrupted) == (12_000, 0, False)
    assert assert_ledger_equals_topic(settings, tmp_path / "ledger") == 12_000
    assert sum(summary.kinds.values()) == 12_000
    assert totals == sorted(totals)
    assert totals[-1] == 12_000
    assert len(list((tmp_path / "ledger").iterdir())) == 3
    fates = {fate for (fate,) in ledger(tmp_path / "ledger", "fate")}
    assert fates == {"silver", "duplicate", "dead_letter", "tombstone"}


def test_a_second_run_of_the_same_seed_is_all_duplicates(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings, plan = make_settings(), replace(PLAN, count=2000, mix=Mix.clean())
    produce_events(settings, plan, tmp_path)
    produce_events(settings, plan, tmp_path)
    assert sorted(fate for (fate,) in ledger(tmp_path, "fate")) == ["duplicate"] * 2000 + ["silver"] * 2000
    assert assert_ledger_equals_topic(settings, tmp_path) == 4000


def test_records_of_a_customer_lie_in_one_partition(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings()
    produce_events(settings, replace(PLAN, mix=Mix.clean()), tmp_path)
    where: dict[bytes | None, set[int]] = {}
    for part, _, _, key, _ in consume(settings):
        where.setdefault(key, set()).add(part)
    assert where.pop(None), "some records have no key; where these go is for the client to decide, batch by batch"
    assert all(len(parts) == 1 for parts in where.values())


def test_an_access_log_sent_twice_has_the_same_events(make_settings: MakeSettings, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    lines = [
        f'192.0.2.{at} - - [17/May/2015:10:05:{at:02d} +0000] "GET /p/{at} HTTP/1.1" 200 {at} "-" "agent"' for at in range(50)
    ]
    log.write_text("\n".join([*lines, "not such a line"]), encoding="utf-8")
    settings, plan = make_settings(), ProducePlan(access_log=log)
    runs = [tmp_path / "one", tmp_path / "two"]
    summaries = [produce_events(settings, plan, folder) for folder in runs]
    assert [summary.kinds for summary in summaries] == [{"access_log": 50, "access_log_unparsed": 1}] * 2
    one, two = (
        sorted(ledger(folder, "event_id, value_md5, kafka_timestamp_ms, customer_id, is_late"), key=str) for folder in runs
    )
    assert one == two
    assert {late for *_, late in one} == {False, None}


def test_a_topic_that_is_missing_outside_is_a_sentence(broker: EmbeddedBroker, tmp_path: Path) -> None:
    settings = load_settings(
        None, environ={}, overrides={"kafka.bootstrap_servers": broker.bootstrap_servers, "kafka.topic": "nobody-made-it"}
    )
    with pytest.raises(UsageError, match="nobody-made-it does not exist on"):
        produce_events(settings, PLAN, tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()


def test_a_broker_that_does_not_answer_is_asked_for_the_set_time(tmp_path: Path) -> None:
    settings = load_settings(
        None, environ={}, overrides={"kafka.bootstrap_servers": "127.0.0.1:1", "kafka.startup_timeout_seconds": 1.0}
    )
    with pytest.raises(TransientError, match=r"No Kafka broker answered at 127\.0\.0\.1:1 within 1 s"):
        produce_events(settings, PLAN, tmp_path / "ledger")


def test_the_embedded_broker_makes_the_topic(broker: EmbeddedBroker, tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "broker.json").write_text(f'{{"bootstrap_servers": "{broker.bootstrap_servers}"}}', encoding="utf-8")
    overrides = {"lake.state_dir": str(tmp_path), "kafka.topic": "made-by-produce", "kafka.partitions": PARTITIONS}
    settings = load_settings(None, environ={}, overrides=overrides)
    produce_events(settings, replace(PLAN, count=100), tmp_path / "ledger")
    outside = load_settings(None, environ={}, overrides={**overrides, "kafka.bootstrap_servers": broker.bootstrap_servers})
    assert assert_ledger_equals_topic(outside, tmp_path / "ledger") == 100


def test_a_run_that_is_stopped_has_in_its_ledger_what_was_acknowledged(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings, stop = make_settings(), threading.Event()
    plan = ProducePlan(count=10**9, seed=1, rate=2000.0)
    summary = produce_events(settings, plan, tmp_path / "ledger", lambda acked: stop.set() if acked > 500 else None, stop=stop)
    assert summary.interrupted
    assert summary.acked > 500
    assert assert_ledger_equals_topic(settings, tmp_path / "ledger") == summary.acked


def test_records_that_kafka_refuses_are_counted_and_not_in_the_ledger(make_settings: MakeSettings, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("short\n" + "x" * 2_000_000 + "\nshort\n", encoding="utf-8")
    settings = make_settings()
    with pytest.raises(LakehouseError, match=r"1 of 3 records were not acknowledged .*Check the broker"):
        produce_events(settings, ProducePlan(access_log=log), tmp_path / "ledger")
    assert assert_ledger_equals_topic(settings, tmp_path / "ledger") == 2


def test_a_topic_that_stamps_records_itself_is_refused(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings({"message.timestamp.type": "LogAppendTime"})
    with pytest.raises(UsageError, match="LogAppendTime"):
        produce_events(settings, replace(PLAN, count=100_000), tmp_path / "ledger")


def test_history_in_the_future_is_refused(make_settings: MakeSettings, tmp_path: Path) -> None:
    plan = replace(PLAN, start_time=datetime(9000, 1, 1, tzinfo=UTC))
    with pytest.raises(UsageError, match="in the future"):
        produce_events(make_settings(), plan, tmp_path / "ledger")


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed terminal"])
def test_stop_ends_the_command_with_130_and_a_true_ledger(
    make_settings: MakeSettings, tmp_path: Path, asked: signal.Signals
) -> None:
    settings = make_settings()
    config = tmp_path / "local.yaml"
    config.write_text(
        f"kafka: {{bootstrap_servers: '{settings.kafka.bootstrap_servers}', topic: '{settings.kafka.topic}'}}\n"
        f"lake: {{state_dir: '{tmp_path}/state'}}\n",
        encoding="utf-8",
    )
    arguments = [
        *(sys.executable, "-m", "lakehouse", "produce"),
        *("--config", str(config), "--count", "100000000", "--seed", "5"),
    ]
    with signals_of_a_terminal():
        child = subprocess.Popen(arguments, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with child:
        try:
            wait_for_records(settings, child)
            child.send_signal(asked)
            output, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 130, errors
    assert "stopped early with 0 not acknowledged" in output
    assert "Traceback" not in errors
    assert assert_ledger_equals_topic(settings, tmp_path / "state" / "op_ledger") > 0


def wait_for_records(settings: Settings, child: subprocess.Popen[str]) -> None:
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": "w"})
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline and child.poll() is None:
            if end_offset(consumer, settings.kafka.topic):
                return
            time.sleep(0.1)
    finally:
        consumer.close()
    pytest.fail(f"the producer sent nothing; its exit code is {child.poll()}")


def end_offset(consumer: Consumer, topic: str) -> int:
    """Next offset of partition 0; of a new topic the broker may know the leader before the leader knows it (2 of 5 times)."""
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1])
    except KafkaException as error:
        if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
            raise
        return 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--late-ratio", "2"], "The ratio `late` is 2"),
        (["--start-time", "tomorrow"], "is not ISO 8601"),
        (["--from-access-log", "nowhere.log"], "cannot be read"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_flags_end_with_one_sentence_and_code_2(
    make_settings: MakeSettings, tmp_path: Path, flags: list[str], sentence: str
) -> None:
    settings = make_settings()
    config = tmp_path / "local.yaml"
    config.write_text(
        f"kafka: {{bootstrap_servers: '{settings.kafka.bootstrap_servers}', topic: '{settings.kafka.topic}'}}", encoding="utf-8"
    )
    arguments = [sys.executable, "-m", "lakehouse", "produce", "--config", str(config), "--ledger", str(tmp_path / "l"), *flags]
    done = subprocess.run(arguments, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "l").exists()
