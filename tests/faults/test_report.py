"""The page of the fault suite says what ran, and says as clearly what did not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from tests.faults.report import Keeper, page


def test_page_tells_shown_failed_and_missing_cases_apart() -> None:
    counts = {"acknowledged": 1200, "bronze": 1200, "silver": 1100, "duplicates": 60, "dead_letters": 30, "tombstones": 10}
    good = {"outcome": "passed", "state": "abc of 2026-01-28"}
    passed = {"case": ["D8"], "fired": ["ten kills"], "held": ["I1 I2"], "recovery": [12.4], **good}
    passed["conservation"] = [{**counts, "fates": 1200}]
    failed = {"case": ["K1"], "outcome": "failed", "state": "abd+ of 2026-01-29"}
    mutant = {"mutant": ["no dedup"], "red": ["I3 I4"], **good}

    operator = {"playbook": [["late-events", 1500, 41.2, 2.1, 9.6]], "session": [["offset-gap", 71.4]], **good}

    text = page(
        {1: {"a": passed, "b": failed, "o": operator}, 2: {"a": {**passed, "recovery": [30.0]}, "m": mutant, "o": operator}}
    )

    assert "- Seed 1: 3 runs, 1 failed; commit abc of 2026-01-28, abd+ of 2026-01-29\n" in text
    assert "- Seed 2: 3 runs, 0 failed; commit abc of 2026-01-28\n" in text
    assert "| D8 | ten kills at random moments under load | I1-I6 I9 | ten kills | I1 I2 | 12 / 30 | " in text
    assert "| 1 / 1 runs passed; not asked: I3 I4 I5 I6 I9 |" in text
    assert "| not shown | - | - | 1 / 0 of 1 / 0 runs FAILED |" in text
    assert "| K2 | broker stopped for 90 s | I1 I9 | - | - | - | not run |" in text
    assert "with the object store, not yet" in text
    assert "| mutant: no dedup | red: I3 I4 | 0 / 1 runs passed |" in text
    assert "| [late-events](../playbooks/late-events.md) | 1,500 | 41 / 41 | 2 / 2 | 10 / 10 |" in text
    assert "| offset-gap | 71 / 71 |" in text
    assert text.count("| 1,200 | 1,200 | 1,100 | 60 | 30 | 10 | 1,200 |") == 2


def test_result_is_kept_at_once_beside_earlier_ones(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "results" / "seed-7.json", tmp_path / "page.md", "abc of 2026-01-28")
    for test, said in (("test_a", ("case", "D8")), ("test_b", ("mutant", "no dedup")), ("test_c", ("other", "x"))):
        for when in ("setup", "call"):
            keeper.pytest_runtest_logreport(_passed(test, when, [said, ("fired", "so")]))
        kept = json.loads((tmp_path / "results" / "seed-7.json").read_text())
        assert kept["test_a"] == {
            "case": ["D8"], "fired": ["so"], "outcome": "passed", "seconds": 0.0, "state": "abc of 2026-01-28"
        }  # fmt: skip
    assert set(kept) == {"test_a", "test_b"}
    assert "- Seed 7: 2 runs, 0 failed; commit abc of 2026-01-28" in (tmp_path / "page.md").read_text()


def _passed(test: str, when: Literal["setup", "call"], said: list[tuple[str, object]]) -> pytest.TestReport:
    return pytest.TestReport(test, ("", 0, ""), {}, "passed", None, when, user_properties=said)
