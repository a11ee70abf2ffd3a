"""Days that the gate refuses: each fault, then its playbook as it is written; the day is billed in the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import yaml
from deltalake import DeltaTable

from lakehouse.local.event_plan import Mix
from pipelines.gold.gate.results import Gate, QualityStore
from pipelines.lake.errors import EXIT_REFUSED
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import CANDIDATES, GOLD_DAILY, GOLD_HOURLY, SILVER
from tests.faults.conftest import DAY
from tests.playbooks.conftest import Patient
from tests.playbooks.pages import read_page
from tests.playbooks.runner import run_block

pytestmark = [pytest.mark.playbooks, pytest.mark.faults, pytest.mark.timeout(2400)]

Make = Callable[[int], Patient]
SECOND, THIRD = DAY + timedelta(days=1), DAY + timedelta(days=2)


def _batch(sick: Patient, day: datetime) -> int:
    done = sick.case.run("batch/reconcile_gold.py", "--date", f"{day:%F}")
    assert done.returncode in (0, EXIT_REFUSED), done.stderr
    return done.returncode


def _closed(sick: Patient, day: datetime) -> bool:
    """Whether the day's rows are final; before, they all are provisional."""
    rows = DeltaTable(sick.path(GOLD_DAILY)).to_pyarrow_table(filters=ds.field("day") == day.date())
    (status,) = set(rows["billing_status"].to_pylist())
    return bool(status == "final")


def _candidates(sick: Patient) -> int:
    return DeltaTable(sick.path(CANDIDATES)).count()


def _refused(sick: Patient, day: datetime) -> set[str]:
    """Run the batch, which the gate has to refuse; give what blocks."""
    assert _batch(sick, day) == EXIT_REFUSED
    assert not _closed(sick, day)
    assert _candidates(sick) > 0
    audit = QualityStore(sick.case.settings).audits(day.date())[0]
    assert audit.gate is Gate.REFUSED
    return {one.expectation for one in audit.blocking}


def _without_region(folder: Path, region: str) -> str:
    """The project's suites, but for one region that they do not know; return their folder."""
    shutil.copytree(PROJECT / "conf/expectations", folder)
    suite = folder / "silver.yaml"
    tree = yaml.safe_load(suite.read_text(encoding="utf-8"))
    (known,) = (one["kwargs"]["value_set"] for one in tree["expectations"] if one["id"] == "silver-region-known")
    known.remove(region)
    suite.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return str(folder)


def test_region_that_nobody_announced_then_gold_that_was_wrong(patient: Make) -> None:
    sick = patient(0)
    for number, start in enumerate((DAY, SECOND, THIRD), 1):
        sick.produce(600, number, start=start, mix=Mix.clean())
    sick.run()
    assert _batch(sick, DAY) == 0
    strict = sick.with_settings(quality={"suites": _without_region(sick.case.folder / "suites", "sa-east-1")})
    assert _refused(strict, SECOND) == {"silver-region-known"}

    again = {"AGAIN": str(sick.checkpoints / "gold" / "again-2")}
    strict.follow("quality-gate", DAY=f"{SECOND:%F}", REASON="the region opened, sales confirmed it", **again)

    assert _closed(sick, SECOND)
    assert _candidates(sick) == 0
    audit = QualityStore(sick.case.settings).audits(SECOND.date())[0]
    assert (audit.gate, audit.override and audit.override.reason) == (Gate.OVERRIDDEN, "the region opened, sales confirmed it")

    # From now on the suite knows the region, as the page says. Somebody writes to Gold.
    sick = strict.with_settings(quality={"suites": "conf/expectations"})
    for table, when in ((GOLD_HOURLY, f"hour >= '{THIRD:%F}T00:00:00Z'"), (GOLD_DAILY, f"day = '{THIRD:%F}'")):
        changed = DeltaTable(sick.path(table)).update(updates={"event_count": "event_count + 7"}, predicate=when)
        assert changed["num_updated_rows"]
    assert _refused(sick, THIRD) == {"day-gold-was-right", "day-gold-was-right-of-most"}

    sick.follow("quality-gate", DAY=f"{THIRD:%F}", AGAIN=str(sick.checkpoints / "gold" / "again-3"))

    assert _closed(sick, THIRD)
    assert QualityStore(sick.case.settings).audits(THIRD.date())[0].gate is Gate.PASSED
    assert not sick.broken_promises()


def test_events_that_were_taken_out_of_silver(patient: Make) -> None:
    sick = patient(0)
    sick.produce(600, 1, mix=Mix.clean())
    sick.produce(600, 2, start=SECOND, mix=Mix.clean())
    sick.run()
    assert _batch(sick, DAY) == 0
    before = f"_event_date = '{SECOND:%F}' AND _kafka_partition IN (0, 1)"
    assert DeltaTable(sick.path(SILVER)).delete(before)["num_deleted_rows"]
    assert {"day-rows-as-in-ledger", "day-volume-usual", "day-gold-was-right"} <= _refused(sick, SECOND)

    # Its checks stay red by this day alone until the batch has run, so only what it does is run.
    page = read_page("conservation")
    for block in page.of("Mitigation"):
        run_block(page, block, {"CONFIG": str(sick.case.config)})
    sick.follow("quality-gate", DAY=f"{SECOND:%F}", AGAIN=str(sick.checkpoints / "gold" / "again-2"))

    assert _closed(sick, SECOND)
    assert _candidates(sick) == 0
    assert QualityStore(sick.case.settings).audits(SECOND.date())[0].gate is Gate.PASSED
    assert not sick.broken_promises()
