"""A fault, then its playbook as it is written, then the independent checker: a command that no longer works is red here."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from batch import archive_bronze
from batch.reconcile_gold import Paths, reconcile
from lakehouse.local.event_plan import Mix
from lakehouse.local.kafka_admin import ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.rebuild_plan import plan_rebuild
from pipelines.bronze import bronze_ingestion
from pipelines.common import jobs, kafka
from pipelines.common.errors import BreakerOpenError, UsageError
from pipelines.common.settings import load_settings
from pipelines.common.tables import ADJUSTMENTS, DLQ, GOLD_DAILY, GOLD_HOURLY, KNOWN_GAPS, SILVER
from tests.faults.conftest import DAY, PROJECT, LakeCase
from tests.playbooks.conftest import Patient

pytestmark = [pytest.mark.playbooks, pytest.mark.faults]

Make = Callable[[int], Patient]
LATER = DAY + timedelta(days=3)
"""Kafka's time has passed the day's grace: it may be closed."""


def test_spark_crash(patient: Make) -> None:
    sick = patient(3000)
    sick.run("bronze")
    killed = sick.case.run("pipelines/silver/silver_processing.py", "--trigger", "available-now", fail_at="silver.after_append:2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    assert sick.follow("spark-crash").recovery < 60

    assert not sick.broken_promises()


def test_checkpoint_lost(patient: Make) -> None:
    sick = patient(3000)
    sick.run()
    sick.produce(1500, 2)
    for job in ("bronze", "silver"):
        shutil.rmtree(sick.checkpoints / job)
    offsets = sick.checkpoints / "gold" / "g1" / "offsets"
    newest = max(offsets.glob("[0-9]*"), key=lambda path: int(path.name))
    newest.write_bytes(newest.read_bytes()[:20])

    sick.follow("checkpoint-lost", JOBS="bronze silver gold")

    assert not sick.broken_promises()


def test_offset_gap(patient: Make) -> None:
    sick = patient(3000)
    query = bronze_ingestion.run(sick.spark, sick.case.settings, trigger=jobs.AVAILABLE_NOW, starting_offsets='{"0":50,"1":20}')
    jobs.await_query(query, threading.Event())
    sick.run("silver", "gold")
    assert "I1" in sick.broken_promises()

    assert "70 offsets in 2 holes" in sick.follow("offset-gap").output

    assert not sick.broken_promises()


def test_retention_overrun(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    end = kafka.wait_for_topic(sick.case.settings).end
    sick.produce(1500, 2)
    sick.delete_records(0, end[0] + 30)

    followed = sick.follow("retention-overrun")

    assert f"Lost for good: partition 0: {end[0]} to {end[0] + 29} (30)" in followed.output
    gaps = DeltaTable(KNOWN_GAPS.path(sick.case.settings)).to_pyarrow_table().to_pylist()
    assert [(gap["first_missing"], gap["last_missing"], gap["cause"]) for gap in gaps] == [(end[0], end[0] + 29, "retention")]
    # The records are lost, and the checker goes on to say so; copies of them may have been promoted in the oracle's eyes.
    assert "I1" in sick.broken_promises() <= {"I1", "I3", "I4", "I12", "I13"}


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

    sick.follow("schema-change", SCHEMAS=str(schemas), NEW_SCHEMA=str(new))
    assert not sick.broken_promises()
    states = DeltaTable(DLQ.path(sick.case.settings)).to_pyarrow_table(columns=["_status"]).column("_status").to_pylist()
    assert states.count("replayed") > 5

    sick.follow("dead-letters", RULE="SLV-004")
    assert not sick.broken_promises()


def test_gold_drift(patient: Make) -> None:
    sick = patient(3000)
    sick.produce(50, 2, start=LATER, mix=Mix.clean())
    sick.run()
    hourly, daily = (DeltaTable(table.path(sick.case.settings)) for table in (GOLD_HOURLY, GOLD_DAILY))
    changed = hourly.update(updates={"event_count": "event_count + 7"}, predicate=f"hour = '{DAY:%FT%H}:00:00Z'")
    assert changed["num_updated_rows"]
    assert daily.delete(f"day = '{DAY:%F}' AND event_count > 3")["num_deleted_rows"]
    assert sick.broken_promises() == {"I5"}

    sick.follow("gold-drift", DAY=f"{DAY:%F}")

    assert not sick.broken_promises()


def test_bad_deploy(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    hourly = DeltaTable(GOLD_HOURLY.path(sick.case.settings))
    good = hourly.version()
    hourly.update(updates={"request_bytes": "request_bytes * 2"}, predicate="request_bytes > 0")
    assert sick.broken_promises() == {"I5"}

    sick.follow("bad-deploy", TABLE=str(GOLD_HOURLY), VERSION=str(good))

    assert not sick.broken_promises()


def test_full_rebuild(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    silver = DeltaTable(SILVER.path(sick.case.settings))
    assert silver.delete("_kafka_partition = 1 AND _kafka_offset > 100")["num_deleted_rows"]
    assert "I3" in sick.broken_promises()

    sick.follow("full-rebuild")

    assert not sick.broken_promises()


def test_bronze_archive(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    config, day = str(sick.case.config), f"{DAY:%F}"
    assert archive_bronze.main(["--config", config, "--before", f"{DAY + timedelta(days=1):%F}"]) == 0
    assert not sick.broken_promises()
    with pytest.raises(UsageError, match="in Bronze's archive alone"):
        plan_rebuild(sick.case.settings, "silver", None, swap=False)

    sick.follow("bronze-archive", FROM=day, TO=day)

    assert not sick.broken_promises()


def test_billing(patient: Make) -> None:
    sick = patient(1500)
    sick.produce(50, 2, start=LATER, mix=Mix.clean())
    sick.run()
    settings = sick.case.settings
    assert reconcile(sick.spark, settings, Paths.of(settings), DAY.date(), datetime.now(UTC)).status == "final"
    sick.produce(300, 3)
    sick.run()

    sick.follow("billing", DAY=f"{DAY:%F}")

    assert DeltaTable(ADJUSTMENTS.path(settings)).to_pyarrow_table().num_rows > 0
    assert not sick.broken_promises()


def test_poison_flood(patient: Make) -> None:
    sick = patient(0).with_settings(breaker={"min_records": 500, "cool_down_seconds": 600.0})
    poison = Mix(**{share.name: float(share.name == "malformed") for share in fields(Mix)})
    sick.produce(200, 1, mix=Mix.clean())
    sick.run()
    sick.produce(1500, 2, mix=poison)
    with pytest.raises(BreakerOpenError):
        sick.run()

    sick.follow("poison-flood")

    assert not sick.broken_promises()


def test_kafka_outage(spark: SparkSession, say: Callable[[str], None], tmp_path: Path) -> None:
    tree = {
        "kafka": {"topic": "usage", "partitions": 3},
        "lake": {"root": str(tmp_path / "lake"), "checkpoints": str(tmp_path / "checkpoints"), "state_dir": str(tmp_path)},
        "spark": {"spark.driver.memory": "1g", "spark.master": "local[2]"},
    }
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(tree))
    settings = load_settings(config, environ={})
    sick = Patient(LakeCase(tmp_path, config, settings), spark, say)
    with EmbeddedBroker(tmp_path) as broker:
        ensure_topic(broker.bootstrap_servers, "usage", 3, {"retention.ms": "-1"})
        sick.produce(1500, 1)
        sick.run()
        sick.produce(1500, 2)
        broker.kill()
    try:
        assert sick.follow("kafka-outage").recovery < 60
        assert not sick.broken_promises()
    finally:
        EmbeddedBroker.attach(tmp_path).stop()
