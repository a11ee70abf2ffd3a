"""Reads days that people give: one grammar for all flags."""

from __future__ import annotations

import re
from datetime import date

from pipelines.lake.errors import UsageError


def parse_day(text: str, flag: str) -> date:
    """Read `YYYY-MM-DD`; raises UsageError, which names the flag, for anything else."""
    day = read_day(text)
    if day is None:
        msg = f"{flag} is {text[:40]!r}, expected a day as YYYY-MM-DD such as 2026-01-28; correct it."
        raise UsageError(msg)
    return day


def parse_optional_day(text: str | None, flag: str) -> date | None:
    """`parse_day` for a flag that may be left out: None stays None."""
    return None if text is None else parse_day(text, flag)


def read_day(text: str) -> date | None:
    """Read `YYYY-MM-DD`; None for anything else, also for other forms of ISO 8601."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
