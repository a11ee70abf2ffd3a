"""One of three brokers goes away, and nobody has to do anything."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse.local.kafka_admin import admin_client, cluster_metadata
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.kafka.watch import TopicWatch
from tests.faults.conftest import make_case
from tests.faults.evidence import Evidence
from tests.faults.kafka_cluster import Cluster
from tests.faults.live import Driver, await_no_lag, load, read_so_far, until

pytestmark = pytest.mark.faults


@pytest.mark.case("K3")
def test_one_of_three_brokers_lost(spark: SparkSession, tmp_path: Path, fault_seed: int, evidence: Evidence) -> None:
    with Cluster(tmp_path / "kafka", 3) as cluster:
        topic_config = {"min.insync.replicas": "2"}
        case = make_case(
            tmp_path, cluster.bootstrap_servers, partitions=6, topic_config=topic_config, gold={"trigger": "1 second"}
        )
        admin, where = admin_client(cluster.bootstrap_servers), cluster.bootstrap_servers

        def leaders() -> dict[int, int]:
            topic = cluster_metadata(admin, where).topics[case.settings.kafka.topic]
            assert all(len(one.replicas) == 3 for one in topic.partitions.values())
            return {number: one.leader for number, one in topic.partitions.items()}

        with load(case, fault_seed) as events, Driver(spark, case.settings) as driver:
            until(lambda: read_so_far(case.settings, "silver") > 0, 240)
            led = leaders()
            victim = random.Random(fault_seed).choice(sorted(set(led.values())))
            cluster.kill(victim)
            with evidence.recovery():
                until(lambda: victim not in leaders().values())
                ends = wait_for_topic(case.settings).end
                # What is acknowledged from here on, two brokers alone have taken.
                until(lambda: all(end > ends[part] for part, end in wait_for_topic(case.settings).end.items()))
                events.end()
                await_no_lag(case.settings)
            moved = sum(leader == victim for leader in led.values())
            evidence.fired(f"SIGKILL of the leader of {moved} of 6 partitions; two brokers went on without it")
            assert driver.is_running

        assert driver.error is None
        # No interruption: no stream had to be started again.
        assert driver.restarts == []
        evidence.holds(case.verdicts())


@pytest.mark.case("K3")
def test_topic_is_known_by_the_brokers_that_are_left(tmp_path: Path, fault_seed: int, evidence: Evidence) -> None:
    with Cluster(tmp_path / "kafka", 3) as cluster:
        settings = make_case(tmp_path, cluster.bootstrap_servers, topic_config={"min.insync.replicas": "2"}).settings
        # Whom a client takes for the controller is chance: of eight, one or more will have to turn to another.
        watches = [TopicWatch(settings) for _ in range(8)]
        known = {watch.topic_id() for watch in watches}
        victim = random.Random(fault_seed).choice(sorted(cluster.ports))
        cluster.kill(victim)
        with ThreadPoolExecutor(len(watches)) as pool:
            told = list(pool.map(TopicWatch.topic_id, watches))
        evidence.fired(f"SIGKILL of one of three brokers, while {len(watches)} clients asked for the topic")

    assert set(told) == known
    assert len(known) == 1
