"""D1 to D6, D9 to D12: one lake filled live by one driver, to which each test does something; then it is started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.local.kafka_broker import EmbeddedBroker
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.lease.layers import leases_held
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import BRONZE, DLQ, GOLD_BY_KEY, GOLD_HOURLY, SILVER, TableName
from tests.faults.conftest import COMMAND, PATIENCE, make_case
from tests.faults.driver import JOBS, Driver, whole_parquet_files
from tests.faults.evidence import Evidence

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 * PATIENCE)]

GRACE_SECONDS = 30
"""What Kubernetes gives a container by default between SIGTERM and SIGKILL."""


@pytest.fixture(scope="module")
def lake(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory, fault_seed: int) -> Iterator[Driver]:
    """A lake whose driver was killed before its very first batch was planned, and has caught up since."""
    folder = tmp_path_factory.mktemp("driver")
    case = make_case(
        folder, broker.bootstrap_servers, seed=fault_seed, bronze={"max_offsets_per_trigger": 300}, gold={"trigger": "1 second"}
    )
    driver = Driver(case, fault_seed)
    driver.send()
    driver.start()
    try:
        driver.kill_as_soon_as((driver.checkpoint("bronze") / "metadata").exists)
        assert driver.planned("bronze") == -1
        driver.start()
        driver.wait_for_no_lag()
        yield driver
    finally:
        driver.end()


@pytest.fixture
def driver(lake: Driver) -> Driver:
    """The driver, running and without lag, whatever the test before has left."""
    if not lake.is_running():
        lake.end()
        lake.start()
    lake.wait_for_no_lag()
    return lake


def _recovers(driver: Driver, evidence: Evidence, *, gold_again: bool = False) -> None:
    with evidence.recovery():
        driver.start()
        driver.wait_for_no_lag()
    evidence.holds(driver.case.verdicts_of_replay() if gold_again else driver.case.verdicts())


def _dies_at(driver: Driver, point: str) -> None:
    driver.arm(point)
    driver.send()
    assert driver.dies() == -signal.SIGKILL
    assert f"killed at the failpoint {point}" in driver.said()


@pytest.mark.case("D1")
def test_killed_before_the_offset_log_is_written(driver: Driver, evidence: Evidence) -> None:
    batch = driver.planned("bronze")
    commits = driver.checkpoint("bronze") / "commits"
    driver.send()
    driver.kill_as_soon_as((commits / str(batch + 1)).exists)

    assert (driver.planned("bronze"), driver.committed("bronze")) == (batch + 1, batch + 1)
    waiting = sum(wait_for_topic(driver.case.settings).end.values()) - sum(
        Ledger(driver.case.settings).end_offsets("bronze").values()
    )
    assert waiting > 0
    evidence.fired("SIGKILL before the first batch's offset file was there, and between two batches while records waited")
    _recovers(driver, evidence)


@pytest.mark.case("D2")
def test_killed_after_the_offset_log_before_the_append(driver: Driver, evidence: Evidence) -> None:
    version = driver.version(BRONZE)
    _dies_at(driver, "bronze.before_append")

    batch = driver.planned("bronze")
    assert (driver.committed("bronze"), driver.written("bronze", BRONZE)) == (batch - 1, batch - 1)
    assert driver.version(BRONZE) == version
    evidence.fired("SIGKILL at bronze.before_append; the batch stands in the offset log, not in the table")
    _recovers(driver, evidence)


def _dies_between_file_and_commit(driver: Driver, folder: Path, version: int) -> set[Path]:
    """Kill the driver when a new data file is whole and the commit that will name it is not there; returns such files."""
    known = whole_parquet_files(folder)
    commit = folder / "_delta_log" / f"{version + 1:020d}.json"
    driver.send()
    driver.kill_as_soon_as(lambda: bool(whole_parquet_files(folder) - known))
    return set() if commit.exists() else whole_parquet_files(folder) - known


@pytest.mark.case("D3")
def test_killed_after_the_files_are_written_before_the_commit(driver: Driver, evidence: Evidence) -> None:
    for _ in range(4):  # the moment is short: a machine that stalls may miss it
        orphans = _dies_between_file_and_commit(driver, driver.path(BRONZE), driver.version(BRONZE))
        if orphans:
            break
        driver.start()
        driver.wait_for_no_lag()

    assert orphans
    batch = driver.planned("bronze")
    assert driver.written("bronze", BRONZE) == batch - 1
    evidence.fired("SIGKILL when a whole Parquet file lay in Bronze that no commit names")
    _recovers(driver, evidence)
    assert all(path.exists() for path in orphans)  # until VACUUM, and no reader sees them


@pytest.mark.case("D4")
def test_killed_after_the_commit_before_the_commit_log(driver: Driver, evidence: Evidence) -> None:
    _dies_at(driver, "bronze.after_append")

    batch, version = driver.planned("bronze"), driver.version(BRONZE)
    assert (driver.committed("bronze"), driver.written("bronze", BRONZE)) == (batch - 1, batch)
    evidence.fired("SIGKILL at bronze.after_append; the batch stands in the table, not in the commit log")
    _recovers(driver, evidence)
    ledger = [row for row in Ledger(driver.case.settings).batches("bronze") if row.batch_id == batch]
    assert [row.versions for row in ledger] == [{str(BRONZE): version}]  # skipped, and counted once


@pytest.mark.case("D5")
@pytest.mark.parametrize("point", ["before_append", "after_replace", "after_append", "after_dead_letters", "after_ledger"])
def test_killed_between_the_writes_of_a_silver_batch(driver: Driver, evidence: Evidence, point: str) -> None:
    if point == "after_replace":
        driver.send()
        driver.wait_for_no_lag()
        driver.arm("silver.after_replace")
        replaced = sum(row.replaced for row in Ledger(driver.case.settings).batches("silver"))
        driver.send_earlier_copies(200)
        assert driver.dies() == -signal.SIGKILL
    else:
        _dies_at(driver, f"silver.{point}")

    batch = driver.planned("silver")
    assert driver.committed("silver") == batch - 1
    is_written = point in ("after_append", "after_dead_letters", "after_ledger")
    assert (driver.written("silver", SILVER) == batch) == is_written
    recorded = {row.batch_id for row in Ledger(driver.case.settings).batches("silver")}
    assert (batch in recorded) == (point == "after_ledger")
    evidence.fired(f"SIGKILL at silver.{point}")
    _recovers(driver, evidence)
    if point == "after_replace":
        assert sum(row.replaced for row in Ledger(driver.case.settings).batches("silver")) > replaced
    assert driver.version(DLQ) > 0


@pytest.mark.case("D6")
def test_killed_in_the_scan_of_a_gold_merge(driver: Driver, evidence: Evidence, fault_seed: int) -> None:
    hourly = driver.path(GOLD_HOURLY)
    files, version = whole_parquet_files(hourly), driver.version(GOLD_HOURLY)
    driver.send()
    # The lease is taken right before the MERGE, which looks for the files that it has to rewrite first.
    driver.wait(lambda: "gold" in leases_held(driver.case.settings), every=0.01)
    time.sleep(random.Random(fault_seed).uniform(0, 0.15))
    driver.kill()

    assert (whole_parquet_files(hourly), driver.version(GOLD_HOURLY)) == (files, version)
    assert driver.committed("gold") == driver.planned("gold") - 1
    evidence.fired("SIGKILL within the MERGE, before it had written a file")
    _recovers(driver, evidence, gold_again=True)


@pytest.mark.case("D6")
def test_killed_when_a_gold_merge_has_written_its_files(driver: Driver, evidence: Evidence) -> None:
    for _ in range(4):
        orphans = _dies_between_file_and_commit(driver, driver.path(GOLD_HOURLY), driver.version(GOLD_HOURLY))
        if orphans:
            break
        driver.start()
        driver.wait_for_no_lag()

    assert orphans
    evidence.fired("SIGKILL when the MERGE's files lay in the table and no commit named them")
    _recovers(driver, evidence, gold_again=True)


@pytest.mark.case("D6")
@pytest.mark.parametrize(
    ("point", "table"), [("after_by_key", GOLD_BY_KEY), ("after_hourly", GOLD_HOURLY), ("after_daily", GOLD_HOURLY)]
)
def test_killed_after_the_commit_of_a_gold_merge(driver: Driver, evidence: Evidence, point: str, table: TableName) -> None:
    version = driver.version(table)
    _dies_at(driver, f"gold.{point}")

    assert driver.version(table) > version
    assert driver.committed("gold") == driver.planned("gold") - 1
    evidence.fired(f"SIGKILL at gold.{point}")
    _recovers(driver, evidence, gold_again=True)


def _send_and_wait_for_a_batch(driver: Driver) -> None:
    driver.send()
    driver.wait(lambda: "silver" in leases_held(driver.case.settings), every=0.01)


@pytest.mark.case("D9")
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_signal_within_a_batch_drains_it(driver: Driver, evidence: Evidence, asked: signal.Signals) -> None:
    batch = driver.committed("silver")
    _send_and_wait_for_a_batch(driver)
    begun = time.monotonic()
    os.kill(driver.pid, asked)
    assert driver.dies(GRACE_SECONDS) == 0, driver.said()
    took = time.monotonic() - begun

    assert all(driver.planned(job) == driver.committed(job) for job in JOBS)
    assert driver.committed("silver") > batch
    evidence.fired(f"{asked.name} while Silver's batch held its lease: drained, exit code 0 (grace: {GRACE_SECONDS} s)")
    assert took < GRACE_SECONDS
    _recovers(driver, evidence)


@pytest.mark.case("D10")
def test_driver_that_stood_still_for_a_minute_goes_on(driver: Driver, evidence: Evidence) -> None:
    _send_and_wait_for_a_batch(driver)
    driver.signal(signal.SIGSTOP)
    driver.send()
    versions = [driver.version(table) for table in (BRONZE, SILVER)]
    time.sleep(60)
    assert [driver.version(table) for table in (BRONZE, SILVER)] == versions
    evidence.fired("SIGSTOP to Python and JVM within a batch, SIGCONT 60 s later; no version was written meanwhile")
    with evidence.recovery():
        driver.signal(signal.SIGCONT)
        driver.wait_for_no_lag()

    assert driver.is_running()
    evidence.holds(driver.case.verdicts())


@pytest.mark.case("D11")
def test_second_driver_is_refused_on_the_checkpoint_and_takes_turns_on_the_table(driver: Driver, evidence: Evidence) -> None:
    config, environ = str(driver.case.config), {**os.environ, "PYTHONPATH": str(PROJECT)}
    same = [*COMMAND, "up", "--only", "bronze", "--trigger", "available-now", "--config", config]
    other = [COMMAND[0], "pipelines/bronze/bronze_ingestion.py", "--config", config, "--trigger", "available-now"]
    other += ["--checkpoint-path", str(driver.case.folder / "checkpoints" / "bronze" / "second")]
    environ["LAKEHOUSE__BRONZE__MAX_OFFSETS_PER_TRIGGER"] = "5000"  # it reads everything again
    refused, beside = (
        subprocess.Popen(command, env=environ, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in (same, other)
    )
    enough = driver.rounds + 30  # not more than the first can follow, however long the other takes
    while beside.poll() is None:
        if driver.rounds < enough:
            driver.send(300)
        time.sleep(1)
    (_, refusal), (_, said) = refused.communicate(timeout=60 * PATIENCE), beside.communicate(timeout=60 * PATIENCE)

    assert refused.returncode == 2, refusal
    assert "is in use by bronze (run " in refusal
    assert f"pid {driver.pid} on" in refusal
    assert beside.returncode == 0, said
    rows = Ledger(driver.case.settings).batches("bronze")
    assert len({row.generation for row in rows}) == 2
    with evidence.recovery():
        driver.wait_for_no_lag()
    evidence.loud("on the same checkpoint refused with exit code 2, the holder's pid named; on the same table both took turns")
    evidence.holds(driver.case.verdicts())


@pytest.mark.case("D12")
def test_jvm_killed_under_its_driver_ends_it_by_name(driver: Driver, evidence: Evidence) -> None:
    _send_and_wait_for_a_batch(driver)
    [jvm] = driver.children()
    os.kill(jvm, signal.SIGKILL)
    code = driver.dies(60)

    assert code == 1, driver.said()
    last = driver.said().rstrip().splitlines()[-1]
    assert last.startswith("lakehouse: "), driver.said()
    assert "the JVM of this process is gone" in last
    assert "playbooks/spark-crash.md" in last
    evidence.fired("SIGKILL to the JVM alone within a batch: exit code 1, the cause named")
    _recovers(driver, evidence)


@pytest.mark.case("D12")
def test_python_killed_over_its_jvm_takes_the_jvm_along(driver: Driver, evidence: Evidence) -> None:
    _send_and_wait_for_a_batch(driver)
    [jvm] = driver.children()
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.process is not None
    driver.process.wait(10)
    deadline = time.monotonic() + 20
    while jvm in driver.children():
        assert time.monotonic() < deadline, "the JVM goes on without its driver"
        time.sleep(0.1)

    evidence.fired("SIGKILL to Python alone within a batch: its JVM ended too")
    _recovers(driver, evidence)
