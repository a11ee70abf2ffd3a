"""What may happen to a topic: made anew, given partitions, compacted, written by transactions. K5: tests/playbooks."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.operations.streams import STREAMS, run_to_end
from lakehouse.proof.checks import check_parameters, choose_checks, load_checks, run_checks
from pipelines.lake.errors import DataLossError
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.tables import BRONZE
from pipelines.runtime.delta import register_tables
from tests.faults.by_hand import Place, Record, note, producer_of, put, send, valid
from tests.faults.conftest import DAY, LakeCase, make_case
from tests.faults.evidence import Evidence
from tests.faults.live import Driver, await_no_lag, produce, read_so_far, until
from tests.transactions import end_transaction

pytestmark = pytest.mark.faults

FOREVER = {"retention.ms": "-1"}
TRIGGER = 15


def _admin(case: LakeCase) -> AdminClient:
    return AdminClient({"bootstrap.servers": case.settings.kafka.bootstrap_servers})


def _values(case: LakeCase) -> list[bytes | None]:
    table = DeltaTable(BRONZE.path(case.settings)).to_pyarrow_table(columns=["_raw_value"])
    values: list[bytes | None] = table.column("_raw_value").to_pylist()
    return values


@pytest.mark.case("K6")
def test_topic_made_anew_under_a_running_stream(
    spark: SparkSession, broker: EmbeddedBroker, tmp_path: Path, fault_seed: int, evidence: Evidence
) -> None:
    # Long between its looks: the old topic goes and the new one outgrows it unseen, and no offset looks wrong.
    rare = {"trigger": f"{TRIGGER} seconds", "max_offsets_per_trigger": 5000}
    case = make_case(tmp_path, broker.bootstrap_servers, events=300, seed=fault_seed, bronze=rare)
    old, topic = wait_for_topic(case.settings), case.settings.kafka.topic
    with Driver(spark, case.settings, ["bronze"]) as driver:
        until(lambda: read_so_far(case.settings) == 300, 90)
        before = _values(case)
        # It looks at whole multiples of its trigger.
        time.sleep(TRIGGER + 0.5 - time.time() % TRIGGER)
        admin = _admin(case)
        admin.delete_topics([topic])[topic].result(10)
        ensure_topic(broker.bootstrap_servers, topic, 3, FOREVER)
        produce(case, fault_seed + 1, 900)
        new = wait_for_topic(case.settings)
        assert read_so_far(case.settings) == 300, "the stream looked in between, so its offsets alone gave the change away"
        assert all(new.end[part] > end for part, end in old.end.items())
        driver.join(60)

    assert isinstance(driver.error, DataLossError)
    assert f"with id {old.topic_id}, but Kafka's has id {new.topic_id}: it was made anew" in str(driver.error)
    assert _values(case) == before
    # Nor does a start by hand mix them.
    with pytest.raises(DataLossError, match="made anew"):
        run_to_end(spark, case.settings, ["bronze"], threading.Event())
    assert _values(case) == before
    evidence.loud("made anew between two batches, larger than before: the stream ends by name, no record of it in Bronze")


@pytest.mark.case("K7")
def test_partitions_added_while_running(
    spark: SparkSession, broker: EmbeddedBroker, tmp_path: Path, fault_seed: int, evidence: Evidence
) -> None:
    case = make_case(tmp_path, broker.bootstrap_servers, events=600, seed=fault_seed, gold={"trigger": "1 second"})
    with Driver(spark, case.settings):
        until(lambda: read_so_far(case.settings) == 600, 90)
        topic = case.settings.kafka.topic
        admin = _admin(case)
        admin.create_partitions([NewPartitions(topic, 6)])[topic].result(10)
        until(lambda: len(wait_for_topic(case.settings).end) == 6)
        produce(case, fault_seed + 1, 900)
        new = {part: end for part, end in wait_for_topic(case.settings).end.items() if part >= 3}
        assert all(new.values())
        with evidence.recovery():
            await_no_lag(case.settings)

    table = DeltaTable(BRONZE.path(case.settings)).to_pyarrow_table(columns=["_kafka_partition", "_kafka_offset"])
    places = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert places >= {(part, offset) for part, end in new.items() for offset in range(end)}
    evidence.fired(f"3 partitions became 6 under a running stream, the new ones hold {sum(new.values())} records")
    evidence.holds(case.verdicts())


def _in_transaction(case: LakeCase, records: list[Record], *, commit: bool) -> list[Place]:
    producer = producer_of(case, transactional_id=f"{case.settings.kafka.topic}-{commit}")
    producer.init_transactions(20)
    producer.begin_transaction()
    places = put(producer, case, records)
    end_transaction(producer, case.settings.kafka.bootstrap_servers, case.settings.kafka.topic, commit=commit)
    if commit:
        note(case, records, places)
    return places


def _offsets_held(case: LakeCase, partition: int) -> set[int]:
    """Offsets of a partition's records, of aborted ones too."""
    options = {"bootstrap.servers": case.settings.kafka.bootstrap_servers, "group.id": "reader", "enable.partition.eof": True}
    consumer = Consumer({**options, "isolation.level": "read_uncommitted"})
    consumer.assign([TopicPartition(case.settings.kafka.topic, partition, 0)])
    found: set[int] = set()
    while True:
        (message,) = consumer.consume(1, 30)
        if message.error() is not None:  # the end of the partition
            consumer.close()
            return found
        found.add(int(message.offset() or 0))


def _red_checks(spark: SparkSession, case: LakeCase) -> dict[str, object]:
    def forget() -> None:
        for layer in ("bronze", "silver", "gold", "ops"):
            spark.sql(f"DROP DATABASE IF EXISTS {layer} CASCADE")

    forget()
    try:
        register_tables(spark, case.settings)
        ids = ("offset_continuity", "bronze_duplicates", "conservation", "ledger_equation", "ledger_totals")
        results = run_checks(spark, choose_checks(load_checks(), ids), None, check_parameters(case.settings, None))
        return {result.check.id: result.first or result.reason for result in results if result.outcome != "passed"}
    finally:
        forget()


@pytest.mark.case("K8")
def test_transactions_and_compaction_leave_holes_that_alarm_nobody(
    spark: SparkSession, broker: EmbeddedBroker, tmp_path: Path, fault_seed: int, evidence: Evidence
) -> None:
    # A new segment for every second of Kafka time: only closed ones are compacted.
    compacted = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "1000"}
    case = make_case(tmp_path, broker.bootstrap_servers, topic_config={**compacted, "max.compaction.lag.ms": "1"})
    clock = iter(DAY + timedelta(seconds=2 * number) for number in range(10_000))

    def events(name: str, count: int, key: str | None = None) -> list[Record]:
        ids = [f"{name}-{fault_seed}-{number}" for number in range(count)]
        return [valid(one, next(clock), key=(key or one).encode(), partition=number % 2) for number, one in enumerate(ids)]

    send(case, events("before", 20))
    outdated = send(case, events("outdated", 20, "same"), noted=False)
    send(case, events("newest", 2, "same"))
    _in_transaction(case, events("committed", 10), commit=True)
    aborted = _in_transaction(case, events("aborted", 10), commit=False)
    send(case, events("after", 20))
    until(lambda: not {offset for part, offset in outdated if part == 0} & _offsets_held(case, 0), 90, poll=1)
    until(lambda: not {offset for part, offset in outdated if part == 1} & _offsets_held(case, 1), 90, poll=1)

    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    # Now the end of the log is a hole.
    aborted += _in_transaction(case, events("aborted-too", 10), commit=False)
    run_to_end(spark, case.settings, ["bronze"], threading.Event())
    _in_transaction(case, events("committed-too", 10), commit=True)
    send(case, events("last", 2))
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())

    held, end = len(_values(case)), wait_for_topic(case.settings).end
    assert held == 20 + 2 + 10 + 20 + 10 + 2
    holes = sum(end.values()) - held
    assert holes > len(aborted) + len(outdated), "the markers of transactions take offsets too"
    evidence.fired(f"{len(outdated)} records compacted away, {len(aborted)} aborted: {holes} offsets are holes")
    assert _red_checks(spark, case) == {}
    evidence.holds(case.verdicts())
