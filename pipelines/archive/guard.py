"""Refuses to read Bronze again where records of that part are in the archive alone: they would be left out in silence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from pipelines.archive import records
from pipelines.archive.content import COORDINATES, coordinates, pack, read
from pipelines.archive.hot import HotTable
from pipelines.lake.errors import UsageError
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.ledger.ranges import merge_ranges, subtract
from pipelines.lake.settings import Settings

_SHOWN = 5


@dataclass(frozen=True, order=True)
class Span:
    """Offsets `first` to `last` (inclusive) of a partition and day; `expired`: the archive has given them up."""

    day: date
    partition: int
    first: int
    last: int
    expired: bool = False


def refuse_unread(settings: Settings) -> None:
    """Refuse a stream of Silver where archived records have no fate in Silver: after a rollback, say, or in a new Silver.

    Raises UsageError with one sentence. Costs a look at a small table where Silver has read everything.
    """
    spans = _spans(settings)
    if spans:
        covered = Ledger(settings).covered("silver")
        _refuse(settings, [part for span in spans for part in _without(span, covered)], "Silver has not read")


def refuse_ranges(settings: Settings, ranges: Mapping[int, list[tuple[int, int]]], why: str) -> None:
    """Refuse to count on records of `ranges` (merged, [start, end) by partition) of which some are in the archive alone.

    Raises UsageError with one sentence; `why`: what these records would have to do.
    """
    wanted = []
    for span in _spans(settings):
        for first, end in ranges.get(span.partition, []):
            low, high = max(span.first, first), min(span.last, end - 1)
            if low <= high:
                wanted.append(Span(span.day, span.partition, low, high, span.expired))
    _refuse(settings, wanted, why)


def refuse_archived(
    settings: Settings,
    *,
    first_day: date | None = None,
    last_day: date | None = None,
    starting: Mapping[int, int] | None = None,
    ending: Mapping[int, int] | None = None,
) -> None:
    """Refuse to read a part of Bronze (no bounds: all) of which records are in the archive alone.

    Raises UsageError with one sentence that says which, and how to put them back.
    """
    named = {*(starting or {}), *(ending or {})}
    wanted = []
    for span in _spans(settings):
        low = max(span.first, (starting or {}).get(span.partition, span.first))
        high = min(span.last, (ending or {}).get(span.partition, span.last + 1) - 1)
        is_asked = (not named or span.partition in named) and low <= high
        if is_asked and (first_day or span.day) <= span.day <= (last_day or span.day):
            wanted.append(Span(span.day, span.partition, low, high, span.expired))
    _refuse(settings, wanted, "are asked for")


def _spans(settings: Settings) -> list[Span]:
    return [_span(row) for row in records.rows(settings)]


def _span(row: Mapping[str, Any]) -> Span:
    return Span(row["day"], row["partition"], row["first_offset"], row["last_offset"], row["expired_at"] is not None)


def _without(span: Span, covered: Mapping[int, list[tuple[int, int]]]) -> list[Span]:
    left = subtract({span.partition: [(span.first, span.last + 1)]}, covered).get(span.partition, [])
    return [Span(span.day, span.partition, first, end - 1, span.expired) for first, end in left]


def _refuse(settings: Settings, wanted: Iterable[Span], why: str) -> None:
    missing = _not_in_bronze(settings, sorted(wanted))
    if not missing:
        return
    offsets = sum(span.last - span.first + 1 for span in missing)
    days = sorted({span.day for span in missing})
    by_partition: dict[int, list[tuple[int, int]]] = {}
    for span in missing:
        by_partition.setdefault(span.partition, []).append((span.first, span.last + 1))
    ranges = [(part, *one) for part, found in sorted(by_partition.items()) for one in merge_ranges(found)]
    listed = ", ".join(f"partition {part} offsets {first} to {end - 1}" for part, first, end in ranges[:_SHOWN])
    more = f" and {len(ranges) - _SHOWN} more ranges" if len(ranges) > _SHOWN else ""
    how = f"put them back with `python batch/archive_bronze.py --restore --from-date {days[0]} --to-date {days[-1]}`"
    if any(span.expired for span in missing):
        how = "some of them have expired there too, so choose a part without them, or go on with the tables as they are"
    msg = (
        f"{offsets:,} records of {days[0]} to {days[-1]} that {why} are in Bronze's archive alone ({listed}{more}); {how}, "
        "then try again."
    )
    raise UsageError(msg)


def _not_in_bronze(settings: Settings, spans: list[Span]) -> list[Span]:
    if not spans:
        return []
    # By day: where nothing was put back, no file of Bronze has these days, and none is opened.
    held = coordinates(read(HotTable.open(settings).rows, sorted({span.day for span in spans}), COORDINATES))

    def is_missing(span: Span) -> bool:
        low = np.searchsorted(held, pack(span.partition, span.first), side="left")
        high = np.searchsorted(held, pack(span.partition, span.last), side="right")
        return int(high - low) < span.last - span.first + 1

    return [span for span in spans if is_missing(span)]
