"""Kafka that is silent, another topic's, cut at its end or at its beginning: each is named with the exact offsets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.facts import Facts
from lakehouse.operations.doctor.findings import Finding
from lakehouse.operations.doctor.source import check_source
from pipelines.lake.kafka.topic import TopicState
from tests.lakehouse.operations.doctor.conftest import TOPIC_ID


def only(facts: Facts) -> Finding:
    (found,) = check_source(facts)
    return found


def test_sound_lake_has_no_findings(sound: Facts) -> None:
    assert diagnose(sound) == []


def test_kafka_that_does_not_answer_is_critical(sound: Facts) -> None:
    found = only(replace(sound, topic=None, kafka_problem="Kafka at k:9092 does not answer; start it."))
    assert (found.id, found.severity, found.playbook) == ("kafka-silent", "critical", "kafka-outage")
    assert "k:9092" in found.evidence
    kafka = sound.settings.kafka.model_copy(update={"bootstrap_servers": "embedded"})
    embedded = replace(sound, topic=None, settings=sound.settings.model_copy(update={"kafka": kafka}))
    assert only(embedded).commands == ("lakehouse kafka status --config my.yaml", "lakehouse kafka start --config my.yaml")


def test_missing_topic_is_told_from_a_silent_broker(sound: Facts) -> None:
    assert only(replace(sound, topic=None, topic_is_missing=True)).id == "topic-missing"


def test_topic_made_anew_hides_what_its_offsets_would_suggest(sound: Facts) -> None:
    found = only(replace(sound, topic=TopicState("t", "topic-2", {0: 0, 1: 0}, {0: 3, 1: 4})))
    assert found.id == "topic-made-anew"
    assert "topic-2" in found.evidence
    assert found.at_stake.startswith("7 records")


def test_end_of_kafka_below_bronze_is_a_lost_log(sound: Facts) -> None:
    found = only(replace(sound, topic=TopicState("t", TOPIC_ID, {0: 0, 1: 0}, {0: 15, 1: 10})))
    assert (found.id, found.severity) == ("log-lost", "critical")
    assert "partition 0: Kafka ends at 15, expected at least 20" in found.evidence
    assert "5 offsets" in found.at_stake


def test_retention_overrun_names_the_lost_range_and_the_way_out(with_ends: Callable[..., Facts]) -> None:
    topic = TopicState("t", TOPIC_ID, {0: 25, 1: 10}, {0: 30, 1: 10})
    found = only(with_ends((30, 20, 20), (10, 10, 10), topic=topic))
    assert (found.id, found.severity, found.confidence) == ("retention-overrun", "critical", "certain")
    assert "partition 0: 20 to 24 (5)" in found.evidence
    assert "At most 5 records" in found.at_stake
    assert found.commands == (
        "lakehouse checkpoint rebuild bronze ck/bronze/g2 --accept-loss --dry-run --config my.yaml",
        "lakehouse checkpoint rebuild bronze ck/bronze/g2 --accept-loss --config my.yaml",
        "python pipelines/bronze/bronze_ingestion.py --config my.yaml --checkpoint-path ck/bronze/g2",
        "lakehouse repair bronze --config my.yaml",
    )
