"""Status, the list of checkpoints, the doctor and the jobs see the same topic: one reader asks for it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from confluent_kafka import Producer

from lakehouse.operations.checkpoints.listing import list_checkpoints
from lakehouse.operations.checkpoints.topic import ask_aside
from lakehouse.operations.doctor.reading import read_facts
from lakehouse.operations.status.reading import read_status
from pipelines.lake.kafka.topic import TopicState, wait_for_topic
from pipelines.lake.tables import BRONZE


def test_all_commands_see_the_same_offsets_also_with_an_open_transaction(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake, partitions=3)
    topic.send(0, 7)
    topic.send(2, 4)
    topic.forget(2, 1)
    producer = Producer({"bootstrap.servers": topic.bootstrap_servers, "transactional.id": uuid4().hex})
    producer.init_transactions()
    producer.begin_transaction()
    for _ in range(5):
        producer.produce(topic.name, b"open", partition=0)
    producer.flush(30)
    lake.append(BRONZE)
    lake.checkpoint("bronze", [{0: 3, 1: 0, 2: 1}])

    seen = wait_for_topic(lake.settings)

    assert seen == TopicState(topic.name, lake.topic_id, {0: 0, 1: 0, 2: 1}, {0: 12, 1: 0, 2: 4}, {0: 7, 1: 0, 2: 4})
    asked = ask_aside(lake.settings)
    assert asked.result() == seen
    (bronze,), silence = list_checkpoints(lake.settings, asked)
    assert (bronze.lag, silence) == (4 + 3, None)
    assert read_facts(lake.settings, "c.yaml").topic == seen
    status = read_status(lake.settings)
    assert status.kafka is None
    assert [(part.kafka_start, part.kafka_end, part.kafka_stable) for part in status.partitions] == [
        (seen.start[part], seen.end[part], seen.stable[part]) for part in seen.end
    ]
    assert status.partitions[0].in_transaction == 5
    producer.abort_transaction(30)
