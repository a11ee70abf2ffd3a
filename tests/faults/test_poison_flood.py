"""M9 on a real broker: nothing but poison comes; the breaker holds Silver while Bronze goes on, and lets go when it is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.producer import produce_events
from lakehouse.operations.streams import run_live, run_to_end
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.settings import BreakerSettings
from pipelines.silver.breaker.breaker_store import BreakerStore
from tests.faults.conftest import DAY, LakeCase
from tests.faults.evidence import Evidence

POISON = Mix(**{share.name: float(share.name == "malformed") for share in fields(Mix)})


def _produce(case: LakeCase, seed: int, count: int, mix: Mix) -> None:
    plan = ProducePlan(count=count, seed=seed, start_time=DAY, span_seconds=3600.0, mix=mix)
    produce_events(case.settings, plan, case.folder / "op_ledger")


def _wait(what: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.case("M9")
def test_flood_of_poison_is_held_and_resumed_with_every_record_accounted_for(
    spark: SparkSession, lake_case: Callable[[int], LakeCase], evidence: Evidence
) -> None:
    case = lake_case(0)
    breaker = BreakerSettings(min_records=500, cool_down_seconds=2.0)
    case = LakeCase(case.folder, case.config, case.settings.model_copy(update={"breaker": breaker}))
    store, ledger = BreakerStore(case.settings), Ledger(case.settings)
    commits = Path(case.settings.lake.checkpoints) / "silver" / "g1" / "commits"
    _produce(case, 1, 200, Mix.clean())
    run_to_end(spark, case.settings, ["bronze", "silver"], threading.Event())
    stop, errors = threading.Event(), list[BaseException]()

    def live() -> None:
        try:
            run_live(spark, case.settings, ["bronze", "silver"], stop)
        except BaseException as error:
            errors.append(error)

    driver = threading.Thread(target=live)
    driver.start()
    try:
        _produce(case, 2, 1500, POISON)
        _wait(lambda: (last := store.last()) is not None and last.to_state == "open")
        read, committed = ledger.end_offsets("silver"), sorted(path.name for path in commits.glob("[0-9]*"))
        _produce(case, 3, 1500, POISON)
        # Bronze goes on landing, and probes fail, while Silver has not moved.
        _wait(lambda: sum(ledger.end_offsets("bronze").values()) == 3200)
        _wait(lambda: [one.to_state for one in store.newest(100)].count("open") >= 3)
        assert ledger.end_offsets("silver") == read
        assert sorted(path.name for path in commits.glob("[0-9]*")) == committed
        evidence.loud("the breaker opened, two probes failed, offsets stood still")
        _produce(case, 4, 3000, Mix.clean())
        with evidence.recovery():
            _wait(lambda: sum(ledger.end_offsets("silver").values()) == 6200)
    finally:
        stop.set()
        driver.join()

    assert not errors
    assert [one.to_state for one in store.newest(100)].count("closed") == 1
    run_to_end(spark, case.settings, ["gold"], threading.Event())
    evidence.holds(case.verdicts())
