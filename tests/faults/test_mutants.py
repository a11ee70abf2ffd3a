"""The system broken on purpose: what keeps it from losing and doubling records is switched off, and the checker goes red."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame, SparkSession

from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.bronze import bronze_ingestion, sink
from pipelines.lake.kafka.options import bootstrap_servers, source_options
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.settings import Settings
from pipelines.runtime import delta
from tests.faults.conftest import LakeCase
from tests.faults.driver import last_batch
from tests.faults.evidence import Evidence

pytestmark = pytest.mark.faults


def _run(spark: SparkSession, case: LakeCase) -> None:
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())


@pytest.mark.mutant("failOnDataLoss off")
def test_checker_goes_red_when_lost_offsets_are_stepped_over(
    spark: SparkSession,
    lake_case: Callable[..., LakeCase],
    monkeypatch: pytest.MonkeyPatch,
    fault_seed: int,
    evidence: Evidence,
) -> None:
    case = lake_case(900)
    _run(spark, case)
    end = wait_for_topic(case.settings).end
    case.produce(900, seed=100_000 + fault_seed)
    place = TopicPartition(case.settings.kafka.topic, 0, end[0] + 30)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers(case.settings)})
    admin.delete_records([place])[TopicPartition(place.topic, 0)].result(10)

    def careless(settings: Settings) -> dict[str, str]:
        return {**source_options(settings), "failOnDataLoss": "false"}

    monkeypatch.setattr(bronze_ingestion, "source_options", careless)
    _run(spark, case)

    evidence.red(case.verdicts(), "I1")


@pytest.mark.mutant("Bronze without transaction ids and without a look at what the table has")
def test_checker_goes_red_when_a_batch_that_runs_again_is_appended_again(
    spark: SparkSession, lake_case: Callable[..., LakeCase], monkeypatch: pytest.MonkeyPatch, evidence: Evidence
) -> None:
    case = lake_case(900)

    def append(frame: DataFrame, path: str, *, app_id: str, batch_id: int, metadata: Mapping[str, Any]) -> int:
        del app_id, batch_id, metadata
        frame.write.format("delta").mode("append").save(path)
        return delta.current_version(frame.sparkSession, path)

    with monkeypatch.context() as patch:
        patch.setattr(delta, "append", append)
        patch.setattr(sink, "read_coverage", lambda *_: {})
        run_to_end(spark, case.settings, ["bronze"], threading.Event())
        commits = Path(case.settings.lake.checkpoints) / "bronze" / "g1" / "commits"
        newest = str(last_batch(commits))
        for name in (newest, f".{newest}.crc"):  # as a crash before the commit log leaves it
            (commits / name).unlink(missing_ok=True)
        run_to_end(spark, case.settings, ["bronze"], threading.Event())
    _run(spark, case)

    evidence.red(case.verdicts(), "I2")
