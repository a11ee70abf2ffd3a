"""The broker goes away: killed, stopped for long, or back with less than it had acknowledged."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.kafka_admin import admin_client
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.operations.streams import run_to_end
from pipelines.lake.errors import EXIT_FAILURE, StreamFailedError
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.tables import BRONZE
from tests.faults.conftest import LakeCase, make_case
from tests.faults.evidence import Evidence
from tests.faults.live import Child, await_no_lag, in_batch, load, produce, read_so_far, until, up

pytestmark = pytest.mark.faults

RECOVERY = 60
"""Seconds from the broker's return until no layer lags."""
OUTAGE = 90


@dataclass
class Outage:
    """A broker that may go away, and a driver of its own process that runs all the while."""

    case: LakeCase
    broker: EmbeddedBroker
    driver: Child

    def await_batches(self) -> None:
        """Wait until the streams have read something more: a driver that does nothing proves nothing."""
        before = {job: read_so_far(self.case.settings, job) for job in ("bronze", "silver")}
        until(lambda: all(read_so_far(self.case.settings, job) > done for job, done in before.items()), 90)


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    folder = tmp_path_factory.mktemp("outage")
    with EmbeddedBroker(folder / "broker", heap_mb=256) as broker:
        case = make_case(folder, broker.bootstrap_servers, gold={"trigger": "1 second"})
        with up(case) as driver:
            yield Outage(case, broker, driver)


@pytest.mark.case("K1")
@pytest.mark.parametrize("stage", ["bronze", "silver", "gold"])
def test_broker_killed_in_each_stage(outage: Outage, stage: str, fault_seed: int, evidence: Evidence) -> None:
    case, broker, chance = outage.case, outage.broker, random.Random(f"{fault_seed}{stage}")
    with load(case, chance.randrange(1 << 30)) as events:
        outage.await_batches()
        time.sleep(chance.uniform(0, 2))
        until(lambda: in_batch(case, stage), poll=0.002)
        broker.kill()
        with pytest.raises(KafkaException):
            admin_client(case.settings.kafka.bootstrap_servers).list_topics(timeout=1)
        evidence.fired(f"SIGKILL while a batch of {stage} was planned and not committed; nobody answered")
        time.sleep(chance.uniform(2, 8))
        broker.start()
        with evidence.recovery():
            events.end()
            await_no_lag(case.settings, RECOVERY)

    assert outage.driver.is_running, outage.driver.said[-2000:]
    evidence.holds(case.verdicts())


@pytest.mark.case("K2")
def test_broker_stopped_for_long(outage: Outage, fault_seed: int, evidence: Evidence) -> None:
    case, pid = outage.case, outage.broker.state.pid
    with load(case, fault_seed) as events:
        outage.await_batches()
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", 10)
            # What it had sent before is still read.
            time.sleep(OUTAGE / 6)
            read = read_so_far(case.settings)
            time.sleep(OUTAGE - OUTAGE / 6)
            assert read_so_far(case.settings) == read
        finally:
            os.kill(pid, signal.SIGCONT)
        evidence.fired(f"SIGSTOP for {OUTAGE} s, Bronze stood still")
        with evidence.recovery():
            events.end()
            await_no_lag(case.settings, RECOVERY)

    assert outage.driver.is_running, outage.driver.said[-2000:]
    evidence.holds(case.verdicts())


@pytest.mark.case("K4")
def test_log_of_a_partition_lost(spark: SparkSession, tmp_path: Path, fault_seed: int, evidence: Evidence) -> None:
    with EmbeddedBroker(tmp_path / "broker", heap_mb=256) as broker:
        case = make_case(tmp_path, broker.bootstrap_servers, events=900, seed=fault_seed)
        run_to_end(spark, case.settings, ["bronze"], threading.Event())
        had = wait_for_topic(case.settings).end
        broker.stop()
        shutil.rmtree(tmp_path / "broker" / "kafka" / "data" / f"{case.settings.kafka.topic}-0")
        broker.start()
        assert wait_for_topic(case.settings).end == {**had, 0: 0}
        produce(case, fault_seed, 60)
        now = wait_for_topic(case.settings).end[0]
        bronze = DeltaTable(BRONZE.path(case.settings))
        version = bronze.version()

        with pytest.raises(StreamFailedError, match=r"offsets that were to be read are gone.*playbooks/") as caught:
            run_to_end(spark, case.settings, ["bronze"], threading.Event())

        assert caught.value.exit_code == EXIT_FAILURE
        bronze.update_incremental()
        assert bronze.version() == version
        said = case.command("checkpoint", "verify", f"{case.settings.lake.checkpoints}/bronze/g1")
        assert said.returncode == EXIT_FAILURE
        assert f"partition 0: Kafka ends at {now}, expected at least {had[0]}" in " ".join(said.stdout.split())
    evidence.loud("the folder of a partition removed: the stream ends by name, `checkpoint verify` says how much is gone")
