"""Between clients and broker lies a network that is slow, cuts connections and loses answers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, TopicPartition
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.kafka_node import choose_ports
from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.tables import BRONZE, SILVER
from tests.faults.by_hand import Place, note, producer_of, put, valid
from tests.faults.conftest import DAY, LakeCase, make_case
from tests.faults.evidence import Evidence
from tests.faults.kafka_cluster import Cluster
from tests.faults.live import Driver, await_no_lag, load, read_so_far, until
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.faults

TIMES = 8
LATENCY = 2.0
SLOW_FOR = 20


@dataclass(frozen=True)
class Network:
    """A broker that everybody reaches through the proxy."""

    case: LakeCase
    proxy: Proxy


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    port = choose_ports().broker
    cluster = Cluster(folder / "kafka", 1, advertised={1: port})
    with Proxy(port, cluster.ports[1].broker) as proxy, cluster:
        yield Network(make_case(folder, cluster.bootstrap_servers, gold={"trigger": "1 second"}), proxy)


@pytest.mark.case("K9")
def test_connections_cut_reset_and_slow(spark: SparkSession, network: Network, fault_seed: int, evidence: Evidence) -> None:
    case, proxy, chance = network.case, network.proxy, random.Random(fault_seed)
    with load(case, fault_seed) as events, Driver(spark, case.settings) as driver:
        until(lambda: read_so_far(case.settings, "silver") > 0, 90)
        ended = Counter[bool]()
        for turn in range(2 * TIMES):
            time.sleep(chance.uniform(0.2, 1.5))
            ended[turn % 2 == 0] += proxy.cut(reset=turn % 2 == 0)
        assert min(ended[True], ended[False]) >= TIMES
        proxy.latency, before = LATENCY, proxy.passed
        time.sleep(SLOW_FOR)
        assert proxy.passed > before
        proxy.latency = 0
        evidence.fired(
            f"{ended[False]} connections cut and {ended[True]} reset under load, then {LATENCY:g} s before each answer "
            f"for {SLOW_FOR} s"
        )
        with evidence.recovery():
            events.end()
            await_no_lag(case.settings)
        assert driver.is_running

    assert driver.error is None
    evidence.holds(case.verdicts())


def _consumed(case: LakeCase) -> list[tuple[Place, bytes | None]]:
    """All records that Kafka holds, read by another client than the lake's."""
    consumer = Consumer({"bootstrap.servers": case.settings.kafka.bootstrap_servers, "group.id": "reader"})
    ends = {part: end for part, end in wait_for_topic(case.settings).end.items() if end}
    consumer.assign([TopicPartition(case.settings.kafka.topic, part, 0) for part in ends])
    found: list[tuple[Place, bytes | None]] = []
    while len(found) < sum(ends.values()):
        (message,) = consumer.consume(1, 30)
        assert message.error() is None
        found.append(((int(message.partition() or 0), int(message.offset() or 0)), message.value()))
    consumer.close()
    return found


@pytest.mark.case("K10")
def test_producer_that_retries_without_idempotence(
    spark: SparkSession, network: Network, fault_seed: int, evidence: Evidence
) -> None:
    case, proxy = network.case, network.proxy
    records = [valid(f"retry-{fault_seed}-{number}", DAY + timedelta(seconds=number)) for number in range(200)]
    producer = producer_of(case, enable_idempotence=False, linger_ms=100)
    note(case, records[:1], put(producer, case, records[:1]))
    proxy.swallow, before = True, proxy.swallowed
    sender = threading.Thread(target=put, args=(producer, case, records[1:]))
    sender.start()
    until(lambda: proxy.swallowed > before)
    # The broker has the records, and its answer never came: the producer sends them again.
    proxy.cut()
    proxy.swallow = False
    sender.join()
    by_value = {record.value: record for record in records[1:]}
    stored = [(place, by_value[value]) for place, value in _consumed(case) if value in by_value]
    twice = len(stored) - len(by_value)
    assert twice > 0
    evidence.fired(f"the answer to a request got lost: Kafka holds {twice} of {len(by_value)} records twice")
    note(case, [record for _, record in stored], [place for place, _ in stored])

    run_to_end(spark, case.settings, list(STREAMS), threading.Event())

    ids = {record.event["event_id"] for record in records if record.event}
    silver = DeltaTable(SILVER.path(case.settings)).to_pyarrow_table(columns=["event_id"]).column("event_id").to_pylist()
    assert Counter(one for one in silver if one in ids) == Counter(ids)
    bronze = DeltaTable(BRONZE.path(case.settings)).to_pyarrow_table(columns=["_raw_value"]).column("_raw_value").to_pylist()
    assert sum(value in by_value for value in bronze) == len(stored)
    evidence.holds(case.verdicts())
