"""Decides when an open day may become final."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta


def grace_has_passed(day: date, now: datetime, grace_hours: float) -> bool:
    """Whether `day` (UTC) ended `grace_hours` ago or more."""
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    return now >= end + timedelta(hours=grace_hours)
