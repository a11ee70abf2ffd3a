"""Which dead letters a command means: by rule, Kafka date, partition, offset and status."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from pipelines.lake.days import read_day
from pipelines.lake.errors import UsageError

STATES = ("open", "replayed", "discarded")
_LAST_PARTITION = 2**31 - 1
"""Kafka's partitions are 32-bit integers."""
_End = TypeVar("_End", date, int)


@dataclass(frozen=True)
class LetterFilter:
    """Letters that meet all that is given; ranges include both ends; of several rules one is enough."""

    rules: tuple[str, ...] = ()
    days: tuple[date, date] | None = None
    partition: int | None = None
    offsets: tuple[int, int] | None = None
    status: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every letter is meant, whatever its status."""
        return not (self.rules or self.days or self.offsets) and self.partition is None

    def predicate(self) -> str:
        """The filter as SQL for DataFusion; `true` where it is empty. Its parts were looked at when they were read."""
        parts = []
        if self.rules:
            parts.append("(" + " OR ".join(f"array_has(_quality_flags, '{rule}')" for rule in self.rules) + ")")
        if self.days:
            parts.append(f"_dlq_date BETWEEN DATE '{self.days[0]}' AND DATE '{self.days[1]}'")
        if self.partition is not None:
            parts.append(f"_kafka_partition = {self.partition}")
        if self.offsets:
            parts.append(f"_kafka_offset BETWEEN {self.offsets[0]} AND {self.offsets[1]}")
        if self.status:
            parts.append(f"_status = '{self.status}'")
        return " AND ".join(parts) or "true"


def read_filter(
    rules: list[str] | None = None,
    date: str | None = None,
    partition: int | None = None,
    offset: str | None = None,
    status: str | None = None,
) -> LetterFilter:
    """Read a filter from what was typed; raises UsageError with one sentence where a part of it is not understood."""
    for rule in rules or ():
        if not re.fullmatch(r"[A-Z]{2,5}-\d{3}", rule):
            msg = f"The rule `{rule[:40]}` is none, expected an id such as SLV-005; docs/rules.md lists them."
            raise UsageError(msg)
    if partition is not None and not 0 <= partition <= _LAST_PARTITION:
        msg = f"The partition is {str(partition)[:40]}, expected a number from 0 to {_LAST_PARTITION}; correct --partition."
        raise UsageError(msg)
    if status is not None and status not in STATES:
        msg = f"The status `{status[:40]}` is none, expected one of {', '.join(STATES)}; correct --status."
        raise UsageError(msg)
    return LetterFilter(tuple(rules or ()), _days(date), partition, _offsets(offset), status)


def read_place(text: str) -> tuple[int, int]:
    """Read PARTITION:OFFSET; raises UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,9}):(\d{1,18})", text, re.ASCII)
    if not match:
        msg = f"`{text[:40]}` is no place of a record, expected PARTITION:OFFSET such as 0:1234."
        raise UsageError(msg)
    return int(match[1]), int(match[2])


def _days(text: str | None) -> tuple[date, date] | None:
    if text is None:
        return None
    begin, _, end = text.partition("..")
    first, last = read_day(begin), read_day(end or begin)
    if first is None or last is None:
        msg = f"The date `{text[:40]}` is not understood, expected a day such as 2026-01-28, or a range 2026-01-20..2026-01-28."
        raise UsageError(msg)
    return _ascending((first, last), text, "date")


def _offsets(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,18})(?:\.\.(\d{1,18}))?", text, re.ASCII)
    if not match:
        msg = f"The offset `{text[:40]}` is not understood, expected a number such as 1234, or a range 1200..1234."
        raise UsageError(msg)
    return _ascending((int(match[1]), int(match[2] or match[1])), text, "offset")


def _ascending(ends: tuple[_End, _End], text: str, what: str) -> tuple[_End, _End]:
    if ends[0] > ends[1]:
        msg = f"The {what} range {text[:50]} ends before it begins; turn it round."
        raise UsageError(msg)
    return ends
