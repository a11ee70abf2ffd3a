"""What the doctor could not see is said once, and nothing is concluded from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lakehouse.operations.doctor.diagnosis import diagnose
from lakehouse.operations.doctor.facts import THE_BROKER, THE_CHECKPOINTS, THE_GAPS, THE_TOPIC_ID, Facts, StreamCheckpoint
from lakehouse.operations.doctor.findings import exit_code
from lakehouse.operations.status.facts import TableStatus
from tests.lakehouse.operations.doctor.conftest import parts, row

WHY = "/lake is not readable: permission denied; run this as the user that owns the lake."


def _ids(facts: Facts) -> list[str]:
    return sorted(finding.id for finding in diagnose(facts))


@pytest.mark.parametrize("what", [THE_CHECKPOINTS, "who runs bronze"])
def test_stream_is_not_called_down_where_nobody_can_tell_who_runs_it(what: str, sound: Facts) -> None:
    waiting = replace(sound, status=replace(sound.status, partitions=parts((20, 10, 10), (10, 10, 10))), checkpoints={})
    assert "stream-down" in _ids(waiting)
    barred = StreamCheckpoint("bronze", "ck/bronze/g1", "ck/bronze/g2", None, unread=WHY, lock_unread=WHY)
    checkpoints = {} if what == THE_CHECKPOINTS else {"bronze": barred}
    found = diagnose(replace(waiting, checkpoints=checkpoints, unread={what: WHY}))
    assert "stream-down" not in {one.id for one in found if one.title.endswith("bronze does not run")}
    assert "checkpoint-lost" not in {one.id for one in found if " bronze " in one.title}


def test_checkpoints_that_were_not_seen_are_not_lost(sound: Facts) -> None:
    empty = replace(sound, checkpoints={})
    assert _ids(empty) == ["checkpoint-lost"] * 3
    found = diagnose(replace(empty, unread={THE_CHECKPOINTS: WHY}))
    assert [(one.id, one.evidence) for one in found] == [("not-examined", WHY)]
    assert exit_code(found) == 1


def test_holes_are_not_judged_without_those_that_are_known(sound: Facts) -> None:
    holed = replace(sound, rows={"bronze": [row("bronze", 0, {"0": [0, 10]}), row("bronze", 1, {"0": [15, 20]})]})
    assert "offset-holes" in _ids(holed)
    assert "offset-holes" not in _ids(replace(holed, unread={THE_GAPS: WHY}))


def test_topic_is_not_judged_where_the_lake_does_not_tell_which_it_holds(sound: Facts) -> None:
    other = replace(sound, bronze_topic_id="another")
    assert "topic-made-anew" in _ids(other)
    short = replace(sound, status=replace(sound.status, partitions=parts((20, 25, 25), (10, 10, 10))))
    assert "log-lost" in _ids(short)
    assert _ids(replace(short, bronze_topic_id=None, unread={THE_TOPIC_ID: WHY})) == ["not-examined"]


def test_broker_whose_address_was_not_seen_is_not_called_silent(sound: Facts) -> None:
    silent = replace(sound, topic=None, kafka_problem=WHY)
    assert "kafka-silent" in _ids(silent)
    assert _ids(replace(silent, unread={THE_BROKER: WHY})) == ["not-examined"]


def test_what_one_folder_bars_is_one_finding(sound: Facts) -> None:
    (found,) = diagnose(replace(sound, unread={"the dead letters": WHY, "the closed days": WHY, "the breaker": WHY}))
    assert found.title == "Could not look at the dead letters, the closed days and the breaker"


def test_table_that_is_not_understood_is_neither_damaged_nor_to_be_rebuilt(sound: Facts) -> None:
    problem = "The table /lake/silver/t has deletionVectors, which the readers without Spark do not understand."
    table = TableStatus("silver.api_usage_events", 3, 30, 1, 1, problem, "not understood")
    (found,) = diagnose(replace(sound, status=replace(sound.status, tables=[table])))
    assert (found.id, found.severity, found.playbook) == ("table-not-understood", "warning", "table-contract")
    assert "rebuild" not in " ".join([found.evidence, found.at_stake, *found.commands])


def test_table_that_is_not_readable_is_not_damaged(sound: Facts) -> None:
    table = TableStatus("silver.api_usage_events", None, None, None, None, WHY, "not readable")
    facts = replace(sound, status=replace(sound.status, tables=[table]), unread={"silver.api_usage_events": WHY})
    assert _ids(facts) == ["not-examined"]
