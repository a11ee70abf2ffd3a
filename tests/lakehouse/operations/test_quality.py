"""What the recorded audits tell an operator: which are shown, in which order, and which days wait."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from lakehouse.operations.quality import failures_first, read_audits, what_makes_one
from pipelines.gold.gate.results import Gate, Override, QualityStore
from pipelines.lake.errors import UsageError
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from tests.audits import BLOCKS, DAY, HOLDS, UNKNOWN, WARNS, audit


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, environ={}, overrides={"lake.root": str(tmp_path / "lake")})


def test_audits_of_a_day_are_all_there_the_newest_first(settings: Settings) -> None:
    first, second = audit(Gate.REFUSED, BLOCKS), audit(Gate.PASSED, HOLDS, hours=3)
    store = QualityStore(settings)
    for one in (second, audit(Gate.REFUSED, BLOCKS, day=DAY - timedelta(days=1)), first):
        store.record(one)

    found = read_audits(settings, DAY)

    assert found.found == (second, first)
    assert (found.newest, found.waiting) == (second, {})


def test_without_a_day_the_newest_audit_of_each_of_the_last_days_is_there(settings: Settings) -> None:
    store, days = QualityStore(settings), [DAY - timedelta(days=back) for back in range(20)]
    for day in days:
        store.record(audit(Gate.REFUSED if day in (days[0], days[19]) else Gate.PASSED, BLOCKS, day=day))
    # Days are not audited in their order, and one that only looked does not let the day pass.
    looked = audit(Gate.AUDITED, HOLDS, day=days[0], hours=1)
    late = audit(Gate.OVERRIDDEN, BLOCKS, day=days[5], hours=200, override=Override("ann", "known"))
    for one in (looked, late):
        store.record(one)

    found = read_audits(settings, None)

    assert [one.day for one in found.found] == days[:14]
    assert (found.found[0], found.found[5], found.newest) == (looked, late, late)
    # Also a day that is too old to be shown waits.
    assert [(day, one.gate) for day, one in found.waiting.items()] == [(days[19], Gate.REFUSED), (days[0], Gate.REFUSED)]


def test_what_blocks_comes_first_then_what_else_fails(settings: Settings) -> None:
    made = audit(Gate.REFUSED, HOLDS, WARNS, BLOCKS, UNKNOWN)
    assert failures_first(made) == [BLOCKS, UNKNOWN, WARNS, HOLDS]
    QualityStore(settings).record(made)

    plain = json.loads(json.dumps(read_audits(settings, DAY).as_dict()))

    assert plain["waiting"] == ["2026-01-28"]
    (one,) = plain["audits"]
    assert {name: one[name] for name in ("run_id", "day", "audited_at", "gate", "silver_version", "gold_version", "docs")} == {
        "run_id": "run-0128-0",
        "day": "2026-01-28",
        "audited_at": "2026-01-29T02:00:00+00:00",
        "gate": "refused",
        "silver_version": 12,
        "gold_version": 3,
        "docs": "docs/2026-01-28/index.html",
    }
    assert (one["overridden_by"], one["override_reason"], one["expectations"]) == (None, None, 4)
    assert one["failures"] == ["volume-usual", "rows-as-in-ledger", "late-share"]
    assert one["blocking"] == ["volume-usual", "rows-as-in-ledger"]
    assert [(row["expectation"], row["success"]) for row in one["results"]] == [
        ("volume-usual", False),
        ("rows-as-in-ledger", None),
        ("late-share", False),
        ("all-read", True),
    ]


def test_override_says_who_and_why(settings: Settings) -> None:
    QualityStore(settings).record(audit(Gate.OVERRIDDEN, BLOCKS, override=Override("ann", "a holiday")))
    (one,) = read_audits(settings, None).as_dict()["audits"]
    assert (one["overridden_by"], one["override_reason"]) == ("ann", "a holiday")


def test_lake_that_is_not_there_is_an_error_and_a_day_without_audit_is_none(settings: Settings) -> None:
    with pytest.raises(UsageError, match="There is no lake at"):
        read_audits(settings, None)
    QualityStore(settings).record(audit(Gate.PASSED))
    other = DAY + timedelta(days=1)
    assert read_audits(settings, other).as_dict() == {"audits": [], "waiting": []}
    assert "`lakehouse quality run --date 2026-01-29`" in what_makes_one(settings, other)
