"""Causes in the world around a lake: Kafka, disk, drivers, producers, settings; see test_causes.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from pyspark.sql import SparkSession

from lakehouse.local.kafka_admin import admin_client, ensure_topic
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.operations.dead_letters.filters import LetterFilter
from lakehouse.operations.dead_letters.run_replay import run_replay
from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.reading import read_facts
from pipelines.lake.errors import EXIT_HELD, EXIT_USAGE, LakehouseError, SettingsError
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import DLQ, KNOWN_GAPS, SILVER
from pipelines.runtime.stream_life import AVAILABLE_NOW
from pipelines.silver import silver_processing
from tests.faults.disks import Disk
from tests.pipelines.conftest import event, record
from tests.playbooks.causes import Case, Copy, case_with_rows, case_with_topic, children, named
from tests.playbooks.runner import run_shell

_ADDED = {"name": "cached", "type": "string", "required": False, "doc": "Whether a cache answered."}


@pytest.fixture
def case(spark: SparkSession, tmp_path: Path, made_once: Copy) -> Case:
    """A lake whose Silver and Gold have read two events; a third waits in Bronze."""
    return case_with_rows(spark, tmp_path, made_once)


@pytest.fixture
def fed(spark: SparkSession, tmp_path: Path, broker: EmbeddedBroker) -> Case:
    """A lake whose Bronze has read two events from a topic of its own."""
    return case_with_topic(spark, tmp_path, broker.bootstrap_servers)


def test_kafka_is_down(case: Case) -> None:
    case.change({"kafka.bootstrap_servers": "127.0.0.1:1", "kafka.startup_timeout_seconds": 1.0})
    with pytest.raises(LakehouseError) as caught:
        wait_for_topic(case.lake.settings)
    found = diagnose(read_facts(case.lake.settings, str(case.config)))

    named(caught.value, "kafka_down", {one.playbook for one in found if one.id == "kafka-silent"})


def test_topic_is_made_anew(fed: Case, tmp_path: Path) -> None:
    address, topic = fed.lake.settings.kafka.bootstrap_servers, fed.lake.settings.kafka.topic
    admin = admin_client(address)
    admin.delete_topics([topic])[topic].result(10)
    ensure_topic(address, topic, 1)
    fed.send("x", "y", "z")

    error = fed.run("bronze")
    named(error, "topic_anew", fed.pages_of_doctor())
    assert fed.sent_to_bronze() == ["a", "b"]
    # Its way out is in the sentence: the new topic gets what that names, and the old lake stays as it is.
    fed.change({name: str(tmp_path / "new" / name) for name in re.findall(r"`(lake\.\w+)`", str(error))})
    assert fed.run("bronze") is None
    assert fed.sent_to_bronze() == ["x", "y", "z"]


def test_retention_passes_bronze(fed: Case) -> None:
    fed.send("c", "d", "e")
    admin = admin_client(fed.lake.settings.kafka.bootstrap_servers)
    place = TopicPartition(fed.lake.settings.kafka.topic, 0, 4)
    admin.delete_records([place])[TopicPartition(place.topic, 0)].result(10)

    named(fed.run("bronze"), "retention", fed.pages_of_doctor())
    assert fed.sent_to_bronze() == ["a", "b"]
    fed.follow("retention-overrun")
    assert fed.run("bronze", "g2") is None
    assert fed.sent_to_bronze() == ["a", "b", "e"]
    gaps = fed.lake.rows(KNOWN_GAPS, "first_missing", "last_missing", "cause")
    assert gaps == [{"first_missing": 2, "last_missing": 3, "cause": "retention"}]


def test_disk_is_full(spark: SparkSession, tmp_path: Path, made_once: Copy) -> None:
    with Disk(tmp_path / "disk") as disk:
        case = case_with_rows(spark, disk.path, made_once)

        def said() -> str:
            # So small a disk is called full as soon as it is there.
            return next(one.evidence for one in case.doctor() if one.id == "disk-full" and str(disk.path) in one.title)

        assert "(0.0%)" not in said()
        disk.fill()
        error, full = case.run(), said()

        named(error, "disk_full", case.pages_of_doctor())
        assert "(0.0%)" in full
        disk.clear()
        assert case.run() is None
        assert case.is_well("a", "b", "c")


@contextmanager
def _process(*words: str, said: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the project, which does not outlive the block."""
    whole = {**os.environ, "PYTHONPATH": str(PROJECT), **environ}
    with said.open("wb") as out, subprocess.Popen(words, cwd=PROJECT, env=whole, stdout=out, stderr=out) as started:
        try:
            yield started
        finally:
            started.kill()


def _until(is_so: Callable[[], bool], other: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert other.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.02)


_HOLD = """
import sys, time
from pipelines.lake.lease.checkpoints import lock_checkpoint
lock = lock_checkpoint(sys.argv[1], job="silver", run="other")
print("taken", flush=True)
time.sleep(600)
"""


def test_second_driver_on_a_checkpoint(case: Case, tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    with _process(sys.executable, "-c", _HOLD, str(case.checkpoint("silver")), said=said) as other:
        _until(lambda: "taken" in said.read_text(), other, said)
        error = case.run()

        named(error, "second_driver", case.pages_of_doctor())
        assert error is not None
        assert error.exit_code == EXIT_USAGE
        assert f"pid {other.pid} on" in str(error)
        other.terminate()
        other.wait(10)
        assert case.run() is None
    assert case.is_well("a", "b", "c")


def test_jvm_is_killed_under_its_driver(case: Case, tmp_path: Path) -> None:
    settings, said = case.lake.settings, tmp_path / "said.txt"
    # Bronze is written by the test: without its row nobody would know that a record waits.
    Ledger(settings).record(BatchRow("bronze", "by-hand", 0, {"0": [0, 11]}, rows_read=3, inserted=3))
    words = (sys.executable, "pipelines/silver/silver_processing.py", "--config", str(case.config))
    spark = f"{{spark.driver.memory: 1g, spark.master: 'local[2]', spark.local.dir: {tmp_path / 'spill'}}}"
    with _process(*words, "--trigger", AVAILABLE_NOW, said=said, LAKEHOUSE__SPARK=spark) as driver:
        # Its batch waits for the lease, so that the JVM dies in the midst of it.
        with lease_of(settings, "silver", job="test", run="t").hold():
            _until((case.checkpoint("silver") / "offsets" / "1").exists, driver, said)
            assert "spark-crash" not in case.pages_of_doctor()
            [jvm] = children(driver.pid, "java")
            os.kill(jvm, signal.SIGKILL)
        assert driver.wait(60) == 1
    last = said.read_text().rstrip().splitlines()[-1]

    named(LakehouseError(last), "jvm_killed", case.pages_of_doctor())
    assert "the JVM of this process is gone" in last
    assert case.run() is None
    assert case.is_well("a", "b", "c")


def test_flood_of_broken_records_opens_the_breaker(case: Case) -> None:
    case.change({"breaker.min_records": 5, "breaker.cool_down_seconds": 600.0})
    case.lake.append(*(record(b"{", 100 + n) for n in range(8)))
    error = case.run()

    named(error, "flood", case.pages_of_doctor())
    assert error is not None
    assert error.exit_code == EXIT_HELD
    assert case.is_well("a", "b")
    case.follow("poison-flood", REASON="their producer is mended")
    assert case.run() is None
    assert case.is_well("a", "b", "c")
    assert len(case.lake.rows(DLQ, "_kafka_offset")) == 8


def test_wrong_settings_are_one_sentence_without_a_page(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence is the way out; the doctor, which reads the same file, says it too."""
    good = case.config.read_text()
    for bad in (f"{good}silvre: {{}}\n", good.replace("min_records: 1000", "min_records: many"), "lake: [\n"):
        case.config.write_text(bad)
        with pytest.raises(SettingsError) as caught:
            load_settings(case.config, environ={})
        named(caught.value, "settings")
        assert str(case.config) in str(caught.value)
        assert silver_processing.main(["--config", str(case.config)]) == EXIT_USAGE
        assert capsys.readouterr().err == f"error: {caught.value}\n"

    refused = run_shell(f"lakehouse doctor --config {case.config}", {})
    assert (refused.returncode, refused.stdout) == (EXIT_USAGE, f"lakehouse: {caught.value}\n")
    case.config.write_text(good)
    assert run_shell(f"lakehouse doctor --config {case.config}", {}).returncode in (0, 1, 3)


def _schema(folder: Path, *others: dict[str, Any]) -> Path:
    """A file of version 1.1 in a folder: the first one's fields, but for `others` of the same name, and one more."""
    first = json.loads((PROJECT / "conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))
    fields = {field["name"]: field for field in (*first["fields"], *others, _ADDED)}
    folder.mkdir(exist_ok=True)
    path = folder / "1.1.json"
    path.write_text(json.dumps({**first, "version": "1.1", "fields": list(fields.values())}))
    return path


def _own_schemas(case: Case) -> Path:
    folder = case.lake.folder / "schemas"
    shutil.copytree(case.lake.settings.schemas_dir, folder)
    case.change({"schemas_dir": str(folder)})
    return folder


def _schema_is_replaced(case: Case, schemas: Path, right: Path) -> None:
    """By the page: the wrong file is put aside, then the right one is compared and put there."""
    variables = {"SCHEMAS": str(schemas), "NEW_SCHEMA": str(right)}
    case.follow("schema-change", 0, **variables)
    case.follow("schema-change", 1, **variables)
    assert (schemas / right.name).read_bytes() == right.read_bytes()
    case.read_schemas_anew()
    assert case.run() is None
    assert case.is_well("a", "b", "c")
    assert "cached" in case.lake.rows(SILVER)[0]


def test_event_schema_is_cut(case: Case, tmp_path: Path) -> None:
    schemas, right = _own_schemas(case), _schema(tmp_path / "from-producers")
    (schemas / "1.1.json").write_bytes(right.read_bytes()[:100])

    named(case.run(), "schema_cut", case.pages_of_doctor())
    _schema_is_replaced(case, schemas, right)


def test_event_schema_breaks_the_one_before(case: Case, tmp_path: Path) -> None:
    schemas = _own_schemas(case)
    _schema(schemas, {"name": "status_code", "type": "string", "required": True, "doc": "HTTP status as text."})
    compared = run_shell(f"lakehouse schema check --config {case.config}", {})
    assert (compared.returncode, "BREAKING: status_code" in compared.stdout) == (1, True), compared.stdout

    named(case.run(), "schema_breaks", case.pages_of_doctor())
    _schema_is_replaced(case, schemas, _schema(tmp_path / "from-producers"))


def test_version_of_an_event_is_unknown(case: Case, tmp_path: Path) -> None:
    schemas = _own_schemas(case)
    case.lake.append(record(event(event_id="d", schema_version="1.1", cached="yes"), 100))

    named(case.run(), "schema_unknown", case.pages_of_doctor())
    assert case.is_well("a", "b", "c")
    case.follow("schema-change", 1, SCHEMAS=str(schemas), NEW_SCHEMA=str(_schema(tmp_path / "from-producers")))
    case.read_schemas_anew()
    chosen = LetterFilter(rules=("SLV-005",))
    done = run_replay(case.lake.settings, chosen, force=False, dry_run=False, say=lambda _: None, spark=case.lake.spark)
    assert done["replayed"] == 1
    assert case.is_well("a", "b", "c", "d")
