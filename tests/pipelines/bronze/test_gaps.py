"""Gaps by numbers alone: what is recorded lies inside what was asked for, and what retention passed is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.bronze.gaps import within
from pipelines.lake.ledger.known_gaps import RETENTION, Gap, passed_by_retention, record_gaps
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, environ={}, overrides={"lake.root": str(tmp_path)})


def test_only_the_part_that_was_asked_for_is_left_of_a_gap() -> None:
    asked = [Gap(0, 20, 49), Gap(0, 60, 60), Gap(1, 0, 9)]

    # Retention has taken 0 to 19, and 20 is a marker: together they are one hole.
    assert within([Gap(0, 0, 20)], asked) == [Gap(0, 20, 20)]
    assert within([Gap(0, 40, 70)], asked) == [Gap(0, 40, 49), Gap(0, 60, 60)]
    assert within([Gap(2, 0, 9), Gap(0, 50, 59)], asked) == []


def test_what_retention_passed_is_named_until_it_is_on_record(settings: Settings) -> None:
    covered = {0: 100, 1: 50, 2: 0}
    starts = {0: 100, 1: 60, 2: 7, 3: 3}

    assert passed_by_retention(settings, "t", starts, covered) == [Gap(1, 50, 59), Gap(2, 0, 6), Gap(3, 0, 2)]
    record_gaps(settings, "t", {Gap(1, 50, 54): RETENTION, Gap(1, 55, 59): RETENTION, Gap(2, 0, 3): RETENTION})
    record_gaps(settings, "another", {Gap(3, 0, 2): RETENTION})
    assert passed_by_retention(settings, "t", starts, covered) == [Gap(2, 4, 6), Gap(3, 0, 2)]


def test_new_lake_begins_with_what_kafka_has(settings: Settings) -> None:
    assert passed_by_retention(settings, "t", {0: 500}, {}) == []
