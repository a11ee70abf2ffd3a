"""Dead letters and breaker: what is open by rule, what could pass now, what is held back; read from hand-made tables."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from lakehouse.operations.doctor.facts import Facts, Letters
from lakehouse.operations.doctor.letters import check_letters
from lakehouse.operations.doctor.reading_letters import read_letter_facts
from lakehouse.operations.status.facts import BreakerStatus
from pipelines.lake.tables import DLQ
from tests.lakehouse.conftest import T0
from tests.lakehouse.operations.doctor.conftest import NOW, parts


def test_open_letters_are_counted_by_rule_and_day(hand_lake: Any) -> None:
    hand_lake.write()
    letters = read_letter_facts(hand_lake.settings)
    assert (letters.total, letters.open) == (2, 2)
    assert letters.open_by == {"SLV-002": {T0.date(): 1}, "SLV-004": {T0.date(): 1}}
    assert not letters.now_known
    hand_lake.rows[DLQ][0]["_status"] = "replayed"
    hand_lake.write(DLQ)
    assert read_letter_facts(hand_lake.settings).open == 1


def test_letters_whose_schema_came_are_counted_by_version_alone(hand_lake: Any) -> None:
    values = [{"schema_version": "1.0"}, {"schema_version": "9.9"}, {"schema_version": 1}, ["1.0"], {}]
    plain = hand_lake.rows[DLQ][0]
    for number, value in enumerate(values):
        changes = {"_raw_value": json.dumps(value).encode(), "_quality_flags": ["SLV-005"], "_kafka_offset": 100 + number}
        hand_lake.rows[DLQ].append({**plain, **changes})
    hand_lake.write()
    letters = read_letter_facts(hand_lake.settings)
    assert letters.open_by["SLV-005"] == {T0.date(): 5}
    assert letters.now_known == {"1.0": 1}


def test_letters_that_a_dead_replay_claims_are_named(hand_lake: Any) -> None:
    hand_lake.rows[DLQ][0]["_replay_id"] = "replay-7"
    hand_lake.write()
    assert read_letter_facts(hand_lake.settings).stuck == ("replay-7",)


def test_few_open_letters_are_an_info_many_a_warning(sound: Facts) -> None:
    few = Letters(total=9, open=1, open_by={"SLV-004": {T0.date(): 1}})
    tables = [replace(sound.status.tables[0], rows=200)]
    (found,) = check_letters(replace(sound, letters=few, status=replace(sound.status, tables=tables)))
    assert (found.id, found.severity, found.playbook) == ("letters-open", "info", "dead-letters")
    assert found.commands == (
        "lakehouse dlq stats --status open --config my.yaml",
        "lakehouse dlq replay --rule SLV-004 --dry-run --config my.yaml",
    )
    many = Letters(total=9, open=7, open_by={"SLV-004": {T0.date(): 2}, "SLV-005": {T0.date(): 4, NOW.date() - timedelta(9): 1}})
    (more,) = check_letters(replace(sound, letters=many))
    assert (more.severity, more.playbook) == ("warning", "schema-change")
    assert "SLV-005 5, SLV-004 2; Kafka days 2026-01-19 to 2026-01-28, 23.33% of Bronze's records" in more.evidence
    assert "lakehouse schema check --config my.yaml" in more.commands


def test_letters_that_would_pass_now_come_with_the_replay(sound: Facts) -> None:
    letters = Letters(total=3, open=0, now_known={"2.0": 3}, stuck=("replay-7",))
    known, died = check_letters(replace(sound, letters=letters))
    assert (known.id, known.severity, known.confidence) == ("letters-schema-known", "warning", "certain")
    assert "2.0 (3 letters)" in known.evidence
    assert known.commands[1:] == (
        "lakehouse dlq replay --rule SLV-005 --dry-run --config my.yaml",
        "lakehouse dlq replay --rule SLV-005 --config my.yaml",
    )
    assert (died.id, died.severity) == ("letters-replay-died", "warning")


def test_breaker_that_is_not_closed_says_what_waits(sound: Facts) -> None:
    breaker = BreakerStatus("open", NOW, NOW + timedelta(minutes=1), 0.9, 1000, "too many dead letters")
    status = replace(sound.status, partitions=parts((20, 20, 12), (10, 10, 10)), breaker=breaker)
    (found,) = check_letters(replace(sound, status=status))
    assert (found.id, found.severity, found.playbook) == ("breaker-open", "critical", "poison-flood")
    assert "too many dead letters" in found.evidence
    assert "8 records of Bronze wait for Silver; 900 of the 1,000" in found.at_stake
    for state, expected in (("half_open", [("breaker-half-open", "warning")]), ("closed", [])):
        other = replace(status, breaker=replace(breaker, state=state, retry_at=None))
        assert [(one.id, one.severity) for one in check_letters(replace(sound, status=other))] == expected
