"""The reader of the topic at a cluster: a partition whose leader is gone has no offset, and a question makes no topic."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from lakehouse.local.kafka_admin import admin_client, cluster_metadata, topic_offsets
from pipelines.lake.errors import TransientError
from pipelines.lake.kafka.topic import NoAnswerError, NoTopicError, ask_topic, offsets_at, wait_for_topic
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from tests.faults.kafka_cluster import Cluster

pytestmark = pytest.mark.faults


def _settings(cluster: Cluster, topic: str, patience: float = 1) -> Settings:
    where = {"kafka.bootstrap_servers": cluster.bootstrap_servers, "kafka.topic": topic}
    return load_settings(None, environ={}, overrides={**where, "kafka.startup_timeout_seconds": patience})


def test_partition_of_a_dead_leader_has_no_offset_and_a_question_makes_no_topic(tmp_path: Path) -> None:
    # The brokers make a topic that a client asks for in a way that allows it, as Kafka does where nobody forbids it.
    with Cluster(tmp_path / "kafka", 2, options="auto.create.topics.enable=true\n") as cluster:
        admin, where = admin_client(cluster.bootstrap_servers), cluster.bootstrap_servers
        admin.create_topics([NewTopic("two", 3, replica_assignment=[[1], [2], [1]])])["two"].result(30)
        with pytest.raises(NoTopicError):
            ask_topic(_settings(cluster, "mistyped"), 5)
        assert "mistyped" not in cluster_metadata(admin, where).topics
        settings = _settings(cluster, "two")
        topic = wait_for_topic(_settings(cluster, "two", 30))
        assert topic.end == {0: 0, 1: 0, 2: 0}

        # Two controllers are too few for an election when one is gone: metadata go on naming the dead leader.
        cluster.kill(2)
        # A client may turn to the dead broker first, and then knows of no partition; it never takes silence for an offset.
        assert {_missing(settings) for _ in range(6)} - {""} == {" for 1 of 3 partitions (1)"}
        with pytest.raises(TransientError, match=r"No Kafka broker answered at .* within 1 s"):
            wait_for_topic(settings)
        with pytest.raises(TransientError, match="does not say where the day 2026-01-28 begins in two"):
            offsets_at(settings, topic, date(2026, 1, 28))
        with pytest.raises(TransientError, match=r"did not tell its offsets|No Kafka broker answered"):
            topic_offsets(where, timeout=2)


def _missing(settings: Settings) -> str:
    with pytest.raises(NoAnswerError) as caught:
        ask_topic(settings, 2)
    return caught.value.missing
