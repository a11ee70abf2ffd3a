"""What is typed as a filter, and one sentence for what is not understood."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from lakehouse.operations.dead_letters.filters import LetterFilter, read_filter, read_place
from pipelines.lake.errors import UsageError


def test_ranges_and_single_values_are_read() -> None:
    chosen = read_filter(["SLV-005", "SLV-006"], "2026-01-20..2026-01-28", 3, "12", "open")
    assert chosen == LetterFilter(("SLV-005", "SLV-006"), (date(2026, 1, 20), date(2026, 1, 28)), 3, (12, 12), "open")
    assert read_filter(date="2026-01-28", offset="5..9").days == (date(2026, 1, 28), date(2026, 1, 28))
    assert read_place("0:1234") == (0, 1234)


def test_partition_0_is_a_filter_and_a_status_alone_is_none() -> None:
    assert not read_filter(partition=0).is_empty
    assert read_filter(status="open").is_empty


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rules": ["schema_not_found"]}, "rule `schema_not_found` is none"),
        ({"rules": ["SLV-005') OR true --"]}, "is none, expected an id"),
        ({"date": "28.01.2026"}, "is not understood, expected a day"),
        ({"date": "2026-01-28..2026-01-20"}, "ends before it begins"),
        ({"date": "2026-02-30"}, "is not understood, expected a day"),
        ({"partition": -1}, "expected a number from 0"),
        ({"partition": 10**20}, "expected a number from 0 to 2147483647"),
        ({"offset": "12-14"}, "is not understood, expected a number"),
        ({"offset": "14..12"}, "ends before it begins"),
        ({"status": "closed"}, "expected one of open, replayed, discarded"),
    ],
)
def test_what_is_not_understood_is_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as raised:
        read_filter(**given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["0", "0:", "0:-1", "a:1", "0:1:2", "\u0660:1"])
def test_wrong_place_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="expected PARTITION:OFFSET"):
        read_place(text)
