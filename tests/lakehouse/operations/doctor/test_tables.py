"""Logs that cannot be read, and offsets that nobody has explained."""

from __future__ import annotations

from dataclasses import replace

import pytest
from deltalake.exceptions import DeltaError

from lakehouse.operations.doctor.facts import THE_TABLES, Facts
from lakehouse.operations.doctor.tables import check_tables
from lakehouse.operations.status.facts import TableStatus
from pipelines.lake.causes.pages import page_for
from pipelines.lake.tables import BRONZE, GOLD_DAILY, SILVER
from tests.lakehouse.operations.doctor.conftest import row


def test_broken_log_names_table_and_where_it_can_come_from(sound: Facts) -> None:
    broken = TableStatus("silver.api_usage_events", None, None, None, None, "version 3 is cut")
    (found,) = check_tables(replace(sound, status=replace(sound.status, tables=[broken])))
    assert (found.id, found.severity, found.playbook) == ("table-unreadable", "critical", "full-rebuild")
    assert found.evidence == "version 3 is cut"
    assert "from Bronze" in found.at_stake


@pytest.mark.parametrize(
    ("name", "playbook", "source"),
    [
        ("bronze.api_usage_events", "bronze-corruption", "from Kafka"),
        ("bronze.api_usage_events_dlq", "full-rebuild", "from Bronze, but for what was decided"),
        ("gold.api_usage_daily", "full-rebuild", "from Silver, but for issued bills"),
        ("gold.billing_adjustments", "full-rebuild", None),
    ],
)
def test_each_broken_log_has_the_page_that_mends_it(name: str, playbook: str, source: str | None, sound: Facts) -> None:
    broken = TableStatus(name, None, None, None, None, "version 3 is cut")
    (found,) = check_tables(replace(sound, status=replace(sound.status, tables=[broken])))
    assert found.playbook == playbook
    assert ("can be made again" in found.at_stake) == bool(source)
    assert (source or "") in found.at_stake


def test_ranges_that_the_batches_left_out_are_critical_until_they_are_known(sound: Facts) -> None:
    rows = [row("bronze", 0, {"0": [0, 10]}), row("bronze", 1, {"0": [15, 20]})]
    holed = replace(sound, rows={"bronze": rows})
    (found,) = check_tables(holed)
    assert (found.id, found.severity) == ("offset-holes", "critical")
    assert "partition 0: 10 to 14," in found.evidence
    assert "Up to 5 records" in found.at_stake
    assert found.commands[0] == "lakehouse repair bronze --dry-run --config my.yaml"
    (part,) = check_tables(replace(holed, known_gaps={0: [(8, 13)]}))
    assert "partition 0: 13 to 14," in part.evidence
    assert list(check_tables(replace(holed, known_gaps={0: [(10, 15)]}))) == []


def test_range_that_a_repair_read_is_no_hole(sound: Facts) -> None:
    rows = [
        row("bronze", 0, {"0": [0, 10]}),
        row("bronze", 1, {"0": [15, 20]}),
        row("bronze", 0, {"0": [10, 15]}, generation="r"),
    ]
    assert list(check_tables(replace(sound, rows={"bronze": rows}))) == []


def test_record_that_silver_did_not_find_is_only_an_info(sound: Facts) -> None:
    silver = [row("silver", 0, {"0": [0, 20], "1": [0, 10]}, holes={"0": [[3, 4], [7, 9]]})]
    holed = replace(sound, rows={**sound.rows, "silver": silver})
    (found,) = check_tables(holed)
    assert (found.id, found.severity, found.confidence) == ("offset-holes-inside", "info", "possible")
    assert "partition 0: 3 to 3; partition 0: 7 to 8" in found.evidence
    later = row("silver", 0, {"0": [7, 9]}, generation="replay")
    (rest,) = check_tables(replace(holed, rows={**sound.rows, "silver": [*silver, later]}))
    assert "7 to 8" not in rest.evidence
    assert list(check_tables(replace(holed, known_gaps={0: [(3, 4), (7, 9)]}))) == []


def test_what_could_not_be_read_is_said(sound: Facts) -> None:
    (found,) = check_tables(replace(sound, unread={"the closed days": "a file is gone"}))
    assert (found.id, found.severity, found.evidence) == ("not-examined", "warning", "a file is gone")
    (store,) = check_tables(replace(sound, unread={THE_TABLES: "connection refused"}))
    assert (store.id, store.severity, store.playbook) == ("store-unreachable", "critical", "object-store-outage")


@pytest.mark.parametrize(
    ("words", "table"),
    [
        ("Kernel error: Json error: Truncated record whilst reading string", str(SILVER)),
        ("Kernel error: Json error: Truncated record whilst reading string", str(BRONZE)),
        ("Kernel error: No table metadata or protocol found in delta log.", str(GOLD_DAILY)),
        ("Kernel error: Unsupported: Feature 'notKnown' is not supported", str(SILVER)),
        ("Generic LocalFileSystem error: Unable to open file /l/x: Permission denied (os error 13)", str(SILVER)),
        ("Generic LocalFileSystem error: Too many open files (os error 24)", str(SILVER)),
    ],
)
def test_doctor_and_error_name_one_page_for_one_cause(words: str, table: str, sound: Facts) -> None:
    status = replace(sound.status, tables=[TableStatus(table, None, None, None, None, words)])
    (found,) = check_tables(replace(sound, status=status))

    assert found.playbook_file == page_for(DeltaError(words), table)
