"""Tables that are wrong: each fault, then its playbook as it is written, then the independent checker."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from batch import archive_bronze
from lakehouse.local.event_plan import Mix
from lakehouse.operations.rebuild.plan import plan_rebuild
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.errors import ContractError, LakehouseError, UsageError
from pipelines.lake.tables import ADJUSTMENTS, BRONZE, GOLD_DAILY, GOLD_HOURLY, SILVER
from tests.faults.conftest import DAY
from tests.faults.evidence import Evidence
from tests.playbooks.conftest import EVENTS, Patient, restore_by_hand

pytestmark = [pytest.mark.playbooks, pytest.mark.faults, pytest.mark.timeout(1800)]

Make = Callable[[int], Patient]
LATER = DAY + timedelta(days=3)
"""Kafka's time has passed the day's grace: it may be closed."""


def test_gold_drift(patient: Make) -> None:
    sick = patient(3000)
    sick.produce(50, 2, start=LATER, mix=Mix.clean())
    sick.run()
    hourly, daily = (DeltaTable(sick.path(table)) for table in (GOLD_HOURLY, GOLD_DAILY))
    changed = hourly.update(updates={"event_count": "event_count + 7"}, predicate=f"hour = '{DAY:%FT%H}:00:00Z'")
    assert changed["num_updated_rows"]
    assert daily.delete(f"day = '{DAY:%F}' AND event_count > 3")["num_deleted_rows"]
    assert sick.broken_promises() == {"I5"}

    sick.follow("gold-drift", DAY=f"{DAY:%F}", AGAIN=str(sick.checkpoints / "gold" / "again-1"))

    assert not sick.broken_promises()


def test_bad_deploy(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    hourly = DeltaTable(sick.path(GOLD_HOURLY))
    good = hourly.version()
    hourly.update(updates={"request_bytes": "request_bytes * 2"}, predicate="request_bytes > 0")
    assert sick.broken_promises() == {"I5"}

    sick.follow("bad-deploy", TABLE=str(GOLD_HOURLY), VERSION=str(good))

    assert not sick.broken_promises()


@pytest.mark.case("R7")
def test_bad_deploy_of_a_table_that_was_restored_by_hand(patient: Make, evidence: Evidence) -> None:
    sick = patient(3000)
    sick.run()
    back = restore_by_hand(sick)
    sick.produce(500, 2)
    with pytest.raises(LakehouseError, match="was restored to an older version"):
        sick.run()
    evidence.fired("RESTORE by hand under a stream that had gone on: the stream was refused before it skipped anything")

    evidence.recovered(sick.follow("bad-deploy", TABLE=str(SILVER), VERSION=str(back)).recovery)

    evidence.holds(sick.case.verdicts())


def test_full_rebuild(patient: Make) -> None:
    sick = patient(EVENTS)
    sick.run()
    silver = DeltaTable(sick.path(SILVER))
    assert silver.delete("_kafka_partition = 1 AND _kafka_offset > 100")["num_deleted_rows"]
    assert "I3" in sick.broken_promises()

    assert sick.follow("full-rebuild").recovery < 300

    assert not sick.broken_promises()


@pytest.mark.case("R6")
def test_full_rebuild_of_a_table_that_cannot_be_read(patient: Make, evidence: Evidence) -> None:
    sick = patient(1500)
    sick.run()
    oldest = min(DeltaTable(sick.path(SILVER)).file_uris(), key=lambda path: Path(path).stat().st_mtime)
    Path(oldest).unlink()
    sick.produce(500, 2)
    stopped = sick.command("up", "--trigger", "available-now")
    assert stopped.returncode == 1, stopped.stderr
    assert "playbooks/full-rebuild.md" in stopped.stderr
    evidence.fired("a file of Silver was deleted: the driver ended and named the playbook")

    followed = sick.follow("full-rebuild")

    assert "not readable" in followed.output
    evidence.recovered(followed.recovery)
    evidence.holds(sick.case.verdicts())


def test_conservation_then_duplicates_then_null_keys(patient: Make) -> None:
    sick = patient(2000)
    sick.run()
    silver = DeltaTable(sick.path(SILVER))
    assert silver.delete("_kafka_partition = 1 AND _kafka_offset BETWEEN 100 AND 119")["num_deleted_rows"]
    assert "I3" in sick.broken_promises()
    assert "conservation: see playbooks/conservation.md" in sick.follow("conservation").output
    assert not sick.broken_promises()

    rows = sick.spark.read.format("delta").load(sick.path(SILVER))
    rows.where("_kafka_partition = 0 AND _kafka_offset < 40").write.format("delta").mode("append").save(sick.path(SILVER))
    assert {"I3", "I4"} <= sick.broken_promises()
    assert "silver_duplicates: see playbooks/duplicates.md" in sick.follow("duplicates").output
    assert not sick.broken_promises()

    hourly = DeltaTable(sick.path(GOLD_HOURLY))
    assert hourly.update(updates={"customer_id": "NULL"}, predicate="event_count > 1")["num_updated_rows"]
    assert sick.broken_promises() == {"I5"}
    assert "null_keys: see playbooks/null-keys.md" in sick.follow("null-keys").output
    assert not sick.broken_promises()


@pytest.mark.case("R6")
def test_bronze_corruption(patient: Make, evidence: Evidence) -> None:
    sick = patient(1500)
    sick.run()
    sick.produce(1500, 2)
    sick.run("bronze")
    bronze, backup = Path(sick.path(BRONZE)), sick.case.folder / "backup"
    shutil.copytree(bronze, backup)
    # A file that Silver has not read yet.
    newest = max(DeltaTable(bronze).file_uris(), key=lambda path: Path(path).stat().st_mtime)
    Path(newest).unlink()
    with pytest.raises(LakehouseError, match=r"FILE_NOT_EXIST|FileNotFound"):
        sick.run("silver")
    evidence.fired("a file of Bronze that Silver had not read was deleted: Silver stopped and named the cause")

    followed = sick.follow("bronze-corruption", BRONZE=str(bronze), BACKUP=str(backup), FILE=Path(newest).name)

    assert f"{Path(newest).name} is missing" in "".join(followed.output.split("\n"))
    evidence.recovered(followed.recovery)
    evidence.holds(sick.case.verdicts())


def test_table_contract(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    silver = DeltaTable(sick.path(SILVER))
    silver.alter.set_table_properties(
        {"delta.enableChangeDataFeed": "false", "delta.logRetentionDuration": "interval 1 day"}, raise_if_not_exists=False
    )
    sick.produce(300, 2)
    sick.run("bronze", "silver")
    with pytest.raises(ContractError, match="lakehouse rebuild gold --swap"):
        sick.run("gold")

    sick.follow("table-contract", TABLE=str(SILVER))

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

    assert DeltaTable(sick.path(ADJUSTMENTS)).to_pyarrow_table().num_rows > 0
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
