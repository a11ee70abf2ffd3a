"""Holes in Bronze: filled where Kafka still has the records, explained where it has not; bounded replays from Kafka."""

from __future__ import annotations

import argparse
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import ProducePlan
from lakehouse.local.producer import produce_events
from pipelines.bronze import bronze_ingestion
from pipelines.lake.errors import EXIT_INTERRUPTED, DataLossError
from pipelines.lake.kafka.options import bootstrap_servers
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import BRONZE, KNOWN_GAPS
from pipelines.runtime.flags import job_parser
from pipelines.runtime.replay import Plan
from pipelines.runtime.stream_life import AVAILABLE_NOW, await_query
from tests.faults.conftest import COMMAND, DAY, PATIENCE, LakeCase
from tests.transactions import end_transaction


def _offsets(case: LakeCase) -> set[tuple[int, int]]:
    table = DeltaTable(BRONZE.path(case.settings)).to_pyarrow_table(columns=["_kafka_partition", "_kafka_offset"])
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert len(set(rows)) == len(rows)
    return set(rows)


def _bronze(spark: SparkSession, case: LakeCase, checkpoint: str, starting: str | None = None) -> None:
    path = f"{case.folder}/{checkpoint}"
    query = bronze_ingestion.run(spark, case.settings, checkpoint_path=path, trigger=AVAILABLE_NOW, starting_offsets=starting)
    await_query(query, threading.Event())


def _repair(case: LakeCase, *flags: str) -> str:
    done = case.command("repair", "bronze", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _transaction(case: LakeCase) -> None:
    """Two records of a transaction, whose marker takes an offset of its own, and one after it."""
    options = {"bootstrap.servers": bootstrap_servers(case.settings)}
    producer = Producer({**options, "transactional.id": case.settings.kafka.topic})
    producer.init_transactions(10)
    producer.begin_transaction()
    for _ in range(2):
        producer.produce(case.settings.kafka.topic, b"{}", partition=1)
    end_transaction(producer, bootstrap_servers(case.settings), case.settings.kafka.topic)
    plain = Producer(options)
    plain.produce(case.settings.kafka.topic, b"{}", partition=1)
    assert plain.flush(10) == 0


@pytest.mark.faults
def test_holes_are_filled_or_explained(spark: SparkSession, lake_case: Callable[[int], LakeCase]) -> None:
    case = lake_case(900)
    _bronze(spark, case, "g1")
    end = wait_for_topic(case.settings).end
    _transaction(case)
    plan = ProducePlan(count=900, seed=2, start_time=DAY, span_seconds=3600.0)
    produce_events(case.settings, plan, case.folder / "op_ledger")
    # A generation that began too late, and a topic whose retention has gone on since.
    _bronze(spark, case, "g2", f'{{"0":{end[0] + 50}}}')
    admin = AdminClient({"bootstrap.servers": bootstrap_servers(case.settings)})
    topic = case.settings.kafka.topic
    admin.delete_records([TopicPartition(topic, 0, end[0] + 20)])[TopicPartition(topic, 0)].result(10)
    before = _offsets(case)

    said = _repair(case, "--dry-run")
    assert "51 offsets in 2 holes missing in Bronze" in said
    assert f"partition 0, offsets {end[0]} to {end[0] + 49}" in said
    assert _offsets(case) == before
    assert "30 offsets filled" in _repair(case)

    assert _offsets(case) - before == {(0, end[0] + offset) for offset in range(20, 50)}
    gaps = DeltaTable(KNOWN_GAPS.path(case.settings)).to_pyarrow_table().to_pylist()
    found = {gap["cause"]: (gap["partition"], gap["first_missing"], gap["last_missing"]) for gap in gaps}
    assert len(gaps) == 2
    assert found["retention"] == (0, end[0], end[0] + 19)
    partition, first, last = found["no_record"]
    # The broker writes the marker in its own time, after the transaction's records.
    assert (partition, last - first) == (1, 0)
    assert first >= end[1] + 2
    assert "none missing in Bronze" in _repair(case)


def _args(*flags: str) -> argparse.Namespace:
    return job_parser("").parse_args(flags)


def test_bounded_replay_from_kafka_writes_what_is_missing_alone(
    spark: SparkSession, lake_case: Callable[[int], LakeCase], capsys: pytest.CaptureFixture[str]
) -> None:
    case = lake_case(900)
    end = wait_for_topic(case.settings).end
    part = ["--ending-offsets", '{"0":100,"2":50}']

    bronze_ingestion.replay(spark, case.settings, _args(*part, "--dry-run"), threading.Event())
    assert "replay of 150 records" in capsys.readouterr().err
    bronze_ingestion.replay(spark, case.settings, _args(*part, "--checkpoint-path", f"{case.folder}/r1"), threading.Event())
    assert _offsets(case) == {*((0, offset) for offset in range(100)), *((2, offset) for offset in range(50))}
    day = ["--from-date", f"{DAY:%F}", "--to-date", "9999-12-31", "--checkpoint-path", f"{case.folder}/r2"]
    bronze_ingestion.replay(spark, case.settings, _args(*day), threading.Event())

    assert _offsets(case) == {(part, offset) for part, last in end.items() for offset in range(last)}


def test_replay_that_died_before_it_noted_its_batch_goes_on_however_long_ago(
    spark: SparkSession, lake_case: Callable[[int], LakeCase]
) -> None:
    case = lake_case(300)
    replay = case.folder / "r1"
    flags = _args("--ending-offsets", '{"0":50}', "--checkpoint-path", str(replay))
    bronze_ingestion.replay(spark, case.settings, flags, threading.Event())
    (replay / "replay/done/0").unlink()
    for number in range(51):  # what the stream beside it has committed since
        DeltaTable(BRONZE.path(case.settings)).alter.set_table_description(str(number))
    before = _offsets(case)

    bronze_ingestion.replay(spark, case.settings, flags, threading.Event())
    assert (replay / "replay/done/0").exists()
    assert _offsets(case) == before

    # Another range under the number of a batch that is written: it would be taken for done.
    (replay / "replay/done/0").unlink()
    plan = replay / "replay/plan.json"
    plan.write_text(plan.read_text().replace("[0, 50]", "[0, 60]"))
    (replay / "replay/.plan.json.crc").unlink()
    with pytest.raises(DataLossError, match=r"was written with offsets .*\[0, 50\].* plans it with .*\[0, 60\]"):
        bronze_ingestion.replay(spark, case.settings, flags, threading.Event())
    assert _offsets(case) == before


@pytest.mark.faults
def test_repair_that_is_stopped_explains_nothing_and_its_repetition_fills_the_rest(
    spark: SparkSession, lake_case: Callable[[int], LakeCase]
) -> None:
    case = lake_case(900)
    topic = wait_for_topic(case.settings)
    parts = Plan([{0: (first, first + 10)} for first in range(0, 200, 20)], 100)  # nine holes, a batch each
    bronze_ingestion.fill(
        spark, case.settings, topic, parts, checkpoint_path=f"{case.folder}/r1", what="parts", stop=threading.Event()
    )
    checkpoints = Path(case.settings.lake.checkpoints) / "bronze"

    command = [*COMMAND, "repair", "bronze", "--config", str(case.config)]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, env=environ, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as repair:
        deadline = time.monotonic() + 120 * PATIENCE
        while not list(checkpoints.glob("repair-*/replay/done/0")):
            assert repair.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        repair.terminate()
        said = repair.communicate(timeout=60 * PATIENCE)[1]

    assert repair.returncode == EXIT_INTERRUPTED, said
    assert "of 9 batches; the same command goes on with it" in said
    filled = len(_offsets(case))
    assert 110 <= filled < 190
    assert not DeltaTable.is_deltatable(KNOWN_GAPS.path(case.settings))
    assert f"{190 - filled} offsets filled; recorded in ops.known_gaps: none without" in _repair(case)
    assert _offsets(case) == {(0, offset) for offset in range(190)}
