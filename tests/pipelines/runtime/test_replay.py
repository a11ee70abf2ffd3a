"""What a bounded replay selects, and which files it opens for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from pipelines.lake.checkpoint.identity import open_checkpoint
from pipelines.lake.errors import CheckpointError
from pipelines.lake.tables import BRONZE
from pipelines.runtime.replay import Plan, Selection, open_plan

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)


@pytest.fixture
def bronze(lake: Lake, make_record: Callable[..., Any]) -> DataFrame:
    """Four commits on four days, each with 10 offsets of each of three partitions, as a live batch writes them."""
    for number in range(4):
        at = T0 + timedelta(days=number)
        lake.append(*(make_record(b"{}", 10 * number + n, partition=part, at=at) for part in range(3) for n in range(10)))
    return lake.spark.read.format("delta").load(lake.path(BRONZE))


@pytest.mark.parametrize(
    ("selection", "rows", "files"),
    [
        (Selection(), 120, 4),
        (Selection({0: 12}, {0: 18}), 6, 1),
        (Selection({0: 30}), 10, 1),
        (Selection(ending={1: 10, 2: 5}), 15, 1),
        (Selection({0: 35}, {1: 5}), 10, 2),
        (Selection({0: 12, 2: 19}, {0: 18, 2: 21}), 8, 2),
        (Selection({0: 5}, {0: 25}, date(2026, 1, 29), date(2026, 1, 29)), 10, 1),
        (Selection(from_date=date(2026, 1, 30)), 60, 2),
        (Selection(to_date=date(2026, 1, 28)), 30, 1),
    ],
)
def test_rows_of_the_part_alone_are_read_from_their_files_alone(
    bronze: DataFrame, selection: Selection, rows: int, files: int
) -> None:
    found = bronze.where(selection.condition())

    assert found.count() == rows
    assert len(found.inputFiles()) == files


@pytest.mark.parametrize("text", ["", '{"batches": [', "[]", "{}", '{"batches": 5, "records": 1, "version": 1}'])
def test_cut_plan_is_one_sentence(spark: SparkSession, tmp_path: Path, text: str) -> None:
    checkpoint = open_checkpoint(str(tmp_path), job="silver", source="a", target="b")
    plan = Plan([{0: (0, 5)}], 5, 3)
    assert open_plan(checkpoint, plan) == plan
    assert open_plan(checkpoint, Plan([], 0)) == plan
    (tmp_path / "replay/plan.json").write_text(text)
    (tmp_path / "replay/.plan.json.crc").unlink()

    with pytest.raises(CheckpointError, match=r"replay/plan\.json of the checkpoint .*checkpoint-lost\.md") as caught:
        open_plan(checkpoint, plan)
    assert "\n" not in str(caught.value)
