"""`lakehouse status` answers from logs and statistics alone: quickly, without a JVM, and without Kafka where there is none."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from deltalake import write_deltalake

from lakehouse.commands.cli import main
from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.operations.status.reading import read_status
from pipelines.lake.errors import UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.tables import BRONZE, DLQ, LEDGER, SILVER
from pipelines.silver.breaker.breaker import Tally
from pipelines.silver.breaker.breaker_store import BreakerStore, Transition
from tests.kafka_door import door, with_error
from tests.lakehouse.conftest import Answers


def _config(lake: Any, **kafka: str) -> Path:
    path: Path = lake.folder / "conf.yaml"
    tree = {"lake": {"root": lake.settings.lake.root, "state_dir": lake.settings.lake.state_dir}, "kafka": kafka}
    path.write_text(json.dumps(tree))
    return path


def test_rows_versions_and_last_batches_are_those_of_the_tables(hand_lake: Any) -> None:
    hand_lake.write()
    hand_lake.write(SILVER)
    found = read_status(hand_lake.settings)
    tables = {table.name: (table.version, table.rows) for table in found.tables}
    assert tables[str(BRONZE)] == (0, 9)
    assert tables[str(SILVER)] == (1, 4)
    assert tables[str(DLQ)] == (0, 2)
    assert "ops.reconciliation" not in tables
    assert [(batch.job, batch.batch_id, batch.rows) for batch in found.batches] == [
        ("bronze", 1, 5),
        ("silver", 1, 5),
        ("gold", 0, 0),
    ]


def test_lag_is_what_the_next_layer_has_not_read(hand_lake: Any) -> None:
    hand_lake.rows[LEDGER] = [row for row in hand_lake.rows[LEDGER] if (row["job"], row["batch_id"]) != ("silver", 1)]
    hand_lake.write()
    found = {part.partition: part for part in read_status(hand_lake.settings).partitions}
    assert [(part.bronze_end, part.silver_end, part.silver_lag) for part in found.values()] == [(6, 2, 4), (4, 2, 2)]
    assert found[0].bronze_lag is None


def test_last_batch_of_a_stopped_job_is_found_behind_many_of_others(hand_lake: Any) -> None:
    hand_lake.write()
    schema = hand_lake.delta(LEDGER).to_pyarrow_table().schema
    for number in range(60):
        row = {**hand_lake.rows[LEDGER][0], "batch_id": number + 2, "offsets": f'{{"0": [{number + 6}, {number + 7}]}}'}
        row["committed_at"] += timedelta(seconds=number + 1)
        write_deltalake(hand_lake.path(LEDGER), pa.Table.from_pylist([row], schema), mode="append")
    found = read_status(hand_lake.settings)
    assert [(batch.job, batch.batch_id) for batch in found.batches] == [("bronze", 61), ("silver", 1), ("gold", 0)]
    assert [part.bronze_end for part in found.partitions] == [66, 4]


def test_kafka_that_is_down_is_shown_not_raised(hand_lake: Any) -> None:
    hand_lake.write()
    absent = read_status(hand_lake.settings)
    assert absent.kafka is not None
    assert "does not run" in absent.kafka
    kafka = hand_lake.settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    down = read_status(hand_lake.settings.model_copy(update={"kafka": kafka}))
    assert down.kafka == "Kafka at 127.0.0.1:1 does not answer."
    assert [part.bronze_end for part in down.partitions] == [6, 4]


def test_kafka_offsets_and_lag_are_the_brokers(hand_lake: Any, broker: Any) -> None:
    topic = "status-lag"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for number in range(10):
        producer.produce(topic, value=str(number).encode(), partition=0)
    producer.flush(30)
    hand_lake.write()
    kafka = hand_lake.settings.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers, "topic": topic})
    settings = hand_lake.settings.model_copy(update={"kafka": kafka})
    found = read_status(settings)
    assert found.kafka is None
    assert [(part.kafka_end, part.bronze_end, part.bronze_lag) for part in found.partitions] == [
        (10, 6, 4),
        (0, 4, 0),
        (0, None, 0),
    ]
    unknown = settings.model_copy(update={"kafka": kafka.model_copy(update={"topic": "no-such-topic"})})
    assert "has no topic no-such-topic" in str(read_status(unknown).kafka)


def test_broker_that_answers_only_half_is_shown_not_raised(hand_lake: Any, broker: Any) -> None:
    topic = "status-half"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    hand_lake.write()
    with door(int(broker.bootstrap_servers.rpartition(":")[2])) as (server, swallowed):
        kafka = hand_lake.settings.kafka.model_copy(update={"bootstrap_servers": server, "topic": topic})
        found = read_status(hand_lake.settings.model_copy(update={"kafka": kafka}))
    assert swallowed
    assert found.kafka == f"Kafka at {server} does not answer."
    assert [part.bronze_end for part in found.partitions] == [6, 4]


def test_partition_that_kafka_does_not_answer_for_is_said(hand_lake: Any, broker: Any) -> None:
    topic = "status-part"
    ensure_topic(broker.bootstrap_servers, topic, 3)
    hand_lake.write()
    change = with_error(KafkaError.NOT_LEADER_FOR_PARTITION, topic, 1)
    with door(int(broker.bootstrap_servers.rpartition(":")[2]), change) as (server, changed):
        kafka = hand_lake.settings.kafka.model_copy(update={"bootstrap_servers": server, "topic": topic})
        found = read_status(hand_lake.settings.model_copy(update={"kafka": kafka}))
    assert changed
    assert found.kafka == f"Kafka at {server} does not answer for 1 of 3 partitions (1)."


def test_holder_of_a_lease_is_shown_while_it_holds_it(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hand_lake.write()
    config = str(_config(hand_lake))
    with lease_of(hand_lake.settings, "silver", job="dlq", run="replay-1").hold():
        holder = read_status(hand_lake.settings).leases["silver"]
        for arguments in ([], ["--json"]):
            with pytest.raises(SystemExit):
                main(["status", *arguments, "--config", config])
        shown, _, plain = capsys.readouterr().out.partition("{")
    assert (holder.job, holder.run, holder.pid) == ("dlq", "replay-1", os.getpid())
    assert f"Lease of silver: dlq (run replay-1, pid {os.getpid()} on {holder.host}, since {holder.since})\n" in shown
    assert json.loads("{" + plain)["leases"]["silver"] == asdict(holder)
    assert read_status(hand_lake.settings).leases == {}


def test_no_lake_is_one_sentence(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="There is no lake"):
        read_status(hand_lake.settings)
    with pytest.raises(SystemExit) as ended:
        main(["status", "--config", str(_config(hand_lake))])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_broken_log_is_shown_beside_the_others(hand_lake: Any) -> None:
    hand_lake.write()
    (Path(hand_lake.path(DLQ)) / "_delta_log" / f"{0:020}.json").write_text("no json\n")
    found = {table.name: table for table in read_status(hand_lake.settings).tables}
    assert found[str(DLQ)].problem
    assert found[str(BRONZE)].rows == 9


def test_ledger_that_cannot_be_read_is_shown_beside_the_tables(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hand_lake.write()
    [path, *_] = Path(hand_lake.path(LEDGER)).glob("*.parquet")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(SystemExit) as ended:
        main(["status", "--config", str(_config(hand_lake))])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "How far the layers are is not known: a file of ops.batch_ledger cannot be read" in " ".join(said.split())

    (Path(hand_lake.path(LEDGER)) / "_delta_log" / f"{0:020}.json").write_text("no json\n")
    found = read_status(hand_lake.settings)
    assert found.ledger == "How far the layers are is not known: the log of ops.batch_ledger cannot be read."
    assert (found.batches, found.partitions) == ([], [])
    assert {table.name: table.rows for table in found.tables}[str(BRONZE)] == 9


def test_breaker_that_cannot_be_read_is_said_and_not_taken_for_closed(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hand_lake.write()
    store = BreakerStore(hand_lake.settings)
    store.append(Transition(datetime(2026, 1, 28, 10, 0, tzinfo=UTC), "closed", "open", Tally(10, 9), "a flood"))
    assert getattr(read_status(hand_lake.settings).breaker, "state", None) == "open"
    [path] = Path(store.path).glob("*.parquet")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(SystemExit) as ended:
        main(["status", "--config", str(_config(hand_lake))])
    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "The breaker's state is not known: a file of ops.circuit_breaker cannot be read" in said
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", "--config", str(_config(hand_lake))])
    found = {finding["title"] for finding in json.loads(capsys.readouterr().out)}
    assert "Could not look at the circuit breaker" in found


def test_command_answers_within_two_seconds_and_starts_no_jvm(hand_lake: Any, answers: Answers) -> None:
    hand_lake.write()
    tables = {name: hand_lake.delta(name).to_pyarrow_table() for name in (BRONZE, SILVER, LEDGER)}
    for _ in range(100):
        for name, rows in tables.items():
            write_deltalake(hand_lake.path(name), rows.slice(0, 1), mode="append")

    def look(done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, done.stderr
        assert "bronze.api_usage_events" in done.stdout
        assert "does not answer" in done.stdout

    # Alone it is about 1; another test runs beside it.
    answers(5, "status", "--config", str(_config(hand_lake, bootstrap_servers="127.0.0.1:1")), look=look)
