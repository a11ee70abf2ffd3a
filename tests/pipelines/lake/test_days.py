"""One grammar of days for all flags."""

from __future__ import annotations

from datetime import date

import pytest

from pipelines.lake.days import parse_day, parse_optional_day, read_day
from pipelines.lake.errors import EXIT_USAGE, UsageError

_WRONG = [
    "",
    "yesterday",
    "2026-02-30",
    "28-01-2026",
    "28.01.2026",
    "2026-01-28T00:00",
    "20260128",
    "2026-W05-3",
    "2026-1-28",
    "0000-01-01",
]


@pytest.mark.parametrize("text", [*_WRONG, " 2026-01-28", "2026-01-28\n", "\u0662\u0660\u0662\u0666-01-28"])
def test_anything_but_a_day_is_one_sentence_that_names_the_flag(text: str) -> None:
    assert read_day(text) is None
    with pytest.raises(
        UsageError, match=r"^--to-date is '.*', expected a day as YYYY-MM-DD such as 2026-01-28; correct it\."
    ) as caught:
        parse_day(text, "--to-date")
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("text", ["0001-01-01", "2026-01-28", "2024-02-29", "9999-12-31"])
def test_day_is_read(text: str) -> None:
    assert parse_day(text, "--date") == parse_optional_day(text, "--date") == date.fromisoformat(text)


def test_flag_that_is_left_out_is_none() -> None:
    assert parse_optional_day(None, "--date") is None
