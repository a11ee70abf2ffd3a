"""Faults between Kafka and Silver: each fault, then its playbook as it is written, then the independent checker.

A command that no longer works is red here.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import Mix
from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from pipelines.bronze import bronze_ingestion
from pipelines.lake.errors import BreakerOpenError, LakehouseError, StreamFailedError
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, DLQ, KNOWN_GAPS
from pipelines.runtime.stream_life import AVAILABLE_NOW, await_query
from tests.faults.conftest import DAY, LakeCase
from tests.faults.evidence import Evidence
from tests.playbooks.conftest import EVENTS, Patient

pytestmark = [pytest.mark.playbooks, pytest.mark.faults, pytest.mark.timeout(1200)]

Make = Callable[[int], Patient]
POISON = Mix(**{share.name: float(share.name == "malformed") for share in fields(Mix)})


@pytest.mark.case("D5")
def test_spark_crash(patient: Make, evidence: Evidence) -> None:
    sick = patient(3000)
    sick.run("bronze")
    killed = sick.case.run("pipelines/silver/silver_processing.py", "--trigger", "available-now", fail_at="silver.after_append:2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    evidence.fired("SIGKILL after the append of Silver's second batch; then the playbook")

    followed = sick.follow("spark-crash")

    evidence.recovered(followed.recovery)
    assert followed.recovery < 60
    evidence.holds(sick.case.verdicts())


@pytest.mark.case("R1", "R3")
def test_checkpoint_lost(patient: Make, evidence: Evidence) -> None:
    sick = patient(EVENTS)
    sick.run()
    sick.produce(1500, 2)
    for job, script in (("bronze", "bronze_ingestion"), ("silver", "silver_processing")):
        # In mid-batch: what it wrote has no row in the ledger yet, and nobody comes back to its checkpoint.
        job_line = (f"pipelines/{job}/{script}.py", "--trigger", "available-now")
        assert sick.case.run(*job_line, fail_at=f"{job}.after_append:1").returncode == -signal.SIGKILL
        shutil.rmtree(sick.checkpoints / job)
    offsets = sick.checkpoints / "gold" / "g1" / "offsets"
    newest = max(offsets.glob("[0-9]*"), key=lambda path: int(path.name))
    newest.write_bytes(newest.read_bytes()[:20])
    with pytest.raises(LakehouseError, match=r"playbooks/checkpoint-lost\.md"):
        sick.run("gold")
    evidence.fired(
        "two drivers killed in mid-batch, their checkpoints deleted with them; the newest offsets of the third cut: its stream "
        "stopped and named the playbook"
    )

    followed = sick.follow("checkpoint-lost", JOBS="bronze silver gold")

    evidence.recovered(followed.recovery)
    assert followed.recovery < 300
    evidence.holds(sick.case.verdicts())


def test_offset_gap(patient: Make) -> None:
    sick = patient(3000)
    query = bronze_ingestion.run(sick.spark, sick.case.settings, trigger=AVAILABLE_NOW, starting_offsets='{"0":50,"1":20}')
    await_query(query, threading.Event())
    sick.run("silver", "gold")
    assert "I1" in sick.broken_promises()

    assert "70 offsets in 2 holes" in sick.follow("offset-gap").output

    assert not sick.broken_promises()


@pytest.mark.case("K5")
def test_retention_overrun(patient: Make, evidence: Evidence) -> None:
    sick = patient(1500)
    sick.run()
    end = wait_for_topic(sick.case.settings).end
    sick.produce(1500, 2)
    sick.delete_records(0, end[0] + 30)
    before = DeltaTable(BRONZE.path(sick.case.settings)).version()
    with pytest.raises(StreamFailedError, match=r"offsets that were to be read are gone.*retention-overrun"):
        sick.run("bronze")
    assert DeltaTable(BRONZE.path(sick.case.settings)).version() == before

    followed = sick.follow("retention-overrun")

    lost = f"partition 0: {end[0]} to {end[0] + 29} (30)"
    assert f"offsets that nobody read are gone: {lost}" in " ".join(followed.output.split())
    assert f"Lost for good: {lost}" in followed.output
    gaps = DeltaTable(KNOWN_GAPS.path(sick.case.settings)).to_pyarrow_table().to_pylist()
    assert [(gap["first_missing"], gap["last_missing"], gap["cause"]) for gap in gaps] == [(end[0], end[0] + 29, "retention")]
    evidence.loud("retention took 30 unread offsets: Bronze stopped, they were named and are in ops.known_gaps")
    evidence.recovered(followed.recovery)
    # The records are lost, and the checker goes on to say so; copies of them may have been promoted in the oracle's eyes.
    broken = sick.broken_promises()
    assert {"I1"} <= broken <= {"I1", "I3", "I4", "I12", "I13"}


def _schema(folder: Path, version: str) -> Path:
    first = json.loads((PROJECT / "conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))
    added = {"name": "cached", "type": "string", "required": False, "doc": "Whether a cache answered."}
    target = folder / f"{version}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({**first, "version": version, "fields": [*first["fields"], added]}))
    return target


def test_schema_change_then_dead_letters(patient: Make) -> None:
    sick = patient(0)
    schemas = sick.case.folder / "schemas"
    shutil.copytree(PROJECT / "conf/schemas/api_usage_events", schemas)
    sick = sick.with_settings(schemas_dir=str(schemas))
    # Among the broken records of the generator are events of a version 99.0, which no file describes.
    sick.produce(4000, 3, mix=Mix(malformed=0.3))
    sick.run()
    new = _schema(sick.case.folder / "from-producers", "99.0")

    again = {"DAY": f"{DAY:%F}", "AGAIN": str(sick.checkpoints / "silver" / "again-1")}
    assert sick.follow("schema-change", SCHEMAS=str(schemas), NEW_SCHEMA=str(new), **again).recovery < 600
    assert not sick.broken_promises()
    letters = DeltaTable(DLQ.path(sick.case.settings)).to_pyarrow_table().to_pylist()
    assert [letter["_status"] for letter in letters].count("replayed") > 5
    letter = next(letter for letter in letters if letter["_quality_flags"] == ["SLV-004"])

    sick.follow("dead-letters", RULE="SLV-004", PLACE=f"{letter['_kafka_partition']}:{letter['_kafka_offset']}")
    assert not sick.broken_promises()


@pytest.mark.case("M9")
def test_poison_flood(patient: Make, evidence: Evidence) -> None:
    sick = patient(0).with_settings(breaker={"min_records": 500, "cool_down_seconds": 600.0})
    sick.produce(200, 1, mix=Mix.clean())
    sick.run()
    sick.produce(1500, 2, mix=POISON)
    with pytest.raises(BreakerOpenError):
        sick.run()
    evidence.loud("the breaker opened; accepted by an operator with the playbook")

    evidence.recovered(sick.follow("poison-flood").recovery)

    evidence.holds(sick.case.verdicts())


@pytest.mark.case("K1")
def test_kafka_outage(
    spark: SparkSession,
    say: Callable[[str], None],
    record_property: Callable[[str, object], None],
    tmp_path: Path,
    evidence: Evidence,
) -> None:
    tree = {
        "kafka": {"topic": "usage", "partitions": 3},
        "lake": {"root": str(tmp_path / "lake"), "checkpoints": str(tmp_path / "checkpoints"), "state_dir": str(tmp_path)},
        "spark": {"spark.driver.memory": "1g", "spark.master": "local[2]"},
    }
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(tree))
    settings = load_settings(config, environ={})
    sick = Patient(LakeCase(tmp_path, config, settings), spark, say, record_property)
    with EmbeddedBroker(tmp_path) as broker:
        ensure_topic(broker.bootstrap_servers, "usage", 3, {"retention.ms": "-1"})
        sick.produce(1500, 1)
        sick.run()
        sick.produce(1500, 2)
        broker.kill()
    try:
        # Its first block sees that the broker is gone; the time is that of its return, and of a driver's start.
        followed = sick.follow("kafka-outage")
        evidence.fired("SIGKILL of the only broker with 1,500 records unread; then the playbook")
        evidence.recovered(followed.recovery)
        assert followed.recovery < 60
        evidence.holds(sick.case.verdicts())
    finally:
        sick.command("kafka", "stop")
