"""The whole path in one session: invariants, a replay with new checkpoints, and mutants that the checker must catch."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.lake.tables import BRONZE, DLQ, SILVER
from pipelines.silver import judge
from pipelines.silver.dedup.lookup import SilverLookup
from pipelines.silver.facts import Facts
from pipelines.silver.judge import BatchSurvivors, Copies
from tests.faults.conftest import LakeCase
from tests.faults.evidence import Evidence


def _run(spark: SparkSession, case: LakeCase, checkpoints: str = "checkpoints") -> None:
    run_to_end(spark, case.with_checkpoints(checkpoints), list(STREAMS), threading.Event())


@pytest.mark.control("nothing happens, then everything again with new checkpoints")
@pytest.mark.faults
def test_everything_holds_and_a_replay_with_new_checkpoints_changes_nothing(
    spark: SparkSession, lake_case: Callable[[int], LakeCase], evidence: Evidence
) -> None:
    case = lake_case(6000)
    digest = case.folder / "gold.digest"
    tables = {str(name): name.path(case.settings) for name in (SILVER, DLQ)}

    _run(spark, case)
    first = case.verdicts(write_digest=digest)
    files = {name: set(DeltaTable(path).file_uris()) for name, path in tables.items()}
    bronze_rows = spark.read.format("delta").load(BRONZE.path(case.settings)).count()
    _run(spark, case, "checkpoints-2")
    second = case.verdicts(gold_digest=digest)

    assert {id_ for id_, verdict in first.items() if verdict != "holds"} == {"I6"}
    assert set(second.values()) == {"holds"}, second
    evidence.holds(second)
    assert spark.read.format("delta").load(BRONZE.path(case.settings)).count() == bronze_rows
    assert {name: set(DeltaTable(path).file_uris()) for name, path in tables.items()} == files


def _no_dedup_in_batch(valid: Facts) -> BatchSurvivors:
    none = np.zeros(len(valid), dtype=bool)
    return BatchSurvivors(valid, Copies(valid.take(none), none[:0]))


def _no_lookup(self: SilverLookup, _spark: SparkSession, first: Facts) -> Facts:
    return first.take(np.zeros(len(first), dtype=bool))


@pytest.mark.mutant("Silver without deduplication")
def test_checker_goes_red_when_dedup_is_broken_on_purpose(
    spark: SparkSession, lake_case: Callable[[int], LakeCase], monkeypatch: pytest.MonkeyPatch, evidence: Evidence
) -> None:
    case = lake_case(3000)
    monkeypatch.setattr(judge, "split_batch", _no_dedup_in_batch)
    monkeypatch.setattr(SilverLookup, "existing", _no_lookup)

    _run(spark, case)
    verdicts = case.verdicts()

    evidence.red(verdicts, "I3", "I4")
    assert verdicts["I1"] == "holds"
