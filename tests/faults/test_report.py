"""The page of the fault suite says what ran, and says as clearly what did not."""

from __future__ import annotations

from tests.faults.report import page


def test_page_tells_shown_failed_and_missing_cases_apart() -> None:
    counts = {"acknowledged": 1200, "bronze": 1200, "silver": 1100, "duplicates": 60, "dead_letters": 30, "tombstones": 10}
    passed = {"case": ["D8"], "fired": ["ten kills"], "held": ["I1 I2"], "recovery": [12.4], "outcome": "passed"}
    passed["conservation"] = [{**counts, "fates": 1200}]
    failed = {"case": ["K1"], "outcome": "failed"}
    mutant = {"mutant": ["no dedup"], "red": ["I3 I4"], "outcome": "passed"}

    operator = {"playbook": [["late-events", 1500, 41.2, 2.1, 9.6]], "session": [["offset-gap", 71.4]], "outcome": "passed"}

    text = page(
        {1: {"a": passed, "b": failed, "o": operator}, 2: {"a": {**passed, "recovery": [30.0]}, "m": mutant, "o": operator}}
    )

    assert "| D8 | ten kills at random moments under load | I1-I6 I9 | ten kills | I1 I2 | 12 / 30 | " in text
    assert "| 2 runs passed; not asked: I3 I4 I5 I6 I9 |" in text
    assert "| not shown | - | - | 1 of 1 runs FAILED |" in text
    assert "| K2 | broker stopped for 90 s | I1 I9 | - | - | - | not run |" in text
    assert "with the object store, not yet" in text
    assert "| mutant: no dedup | red: I3 I4 | 1 runs passed |" in text
    assert "| [late-events](../playbooks/late-events.md) | 1,500 | 41 / 41 | 2 / 2 | 10 / 10 |" in text
    assert "| offset-gap | 71 / 71 |" in text
    assert text.count("| 1,200 | 1,200 | 1,100 | 60 | 30 | 10 | 1,200 |") == 2
