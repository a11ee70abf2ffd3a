"""Questions to a real broker, and to none."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType

from lakehouse.local.kafka_admin import admin_client, ensure_topic, topic_offsets
from lakehouse.local.kafka_broker import EmbeddedBroker
from pipelines.lake.errors import TransientError, UsageError


def test_topic_is_made_once_and_kept_for_ever(broker: EmbeddedBroker) -> None:
    address = broker.bootstrap_servers
    assert ensure_topic(address, "kept", 3, {"segment.ms": "60000"}) == 3
    assert ensure_topic(address, "kept", 5) == 3
    resource = ConfigResource(ResourceType.TOPIC, "kept")
    admin = admin_client(address)
    config = admin.describe_configs([resource])[resource].result(10)
    assert {name: config[name].value for name in ("retention.ms", "segment.ms", "message.timestamp.type")} == {
        "retention.ms": "-1",
        "segment.ms": "60000",
        "message.timestamp.type": "CreateTime",
    }


def test_end_offsets_are_told_per_partition(broker: EmbeddedBroker) -> None:
    ensure_topic(broker.bootstrap_servers, "offsets", 2)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all"})
    producer.produce("offsets", value=b"x", partition=1)
    assert producer.flush(30) == 0
    ends = {topic.topic: topic.end_offsets for topic in topic_offsets(broker.bootstrap_servers)}
    assert ends["offsets"] == {0: 0, 1: 1}
    assert not any(name.startswith("__") for name in ends)


@pytest.mark.parametrize("timestamp_ms", [1_262_304_000_000, 4_102_444_800_000])
def test_records_of_old_and_of_future_times_are_taken_as_they_are(broker: EmbeddedBroker, timestamp_ms: int) -> None:
    topic = f"times-{timestamp_ms}"
    ensure_topic(broker.bootstrap_servers, topic, 1)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all"})
    producer.produce(topic, value=b"x", timestamp=timestamp_ms)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.timestamp()[1] == timestamp_ms


def test_refused_topic_name_is_a_usage_error(broker: EmbeddedBroker) -> None:
    with pytest.raises(UsageError, match="did not create the topic"):
        ensure_topic(broker.bootstrap_servers, "not a topic", 1)


def test_silent_address_is_one_sentence_and_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TransientError, match=r"No Kafka broker answered at 127\.0\.0\.1:1 within 1 s"):
        topic_offsets("127.0.0.1:1", timeout=1.0)
    assert capfd.readouterr() == ("", "")
