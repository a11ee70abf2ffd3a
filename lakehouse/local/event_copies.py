"""Copies of earlier events: exact ones near and far, re-sent ones, and ones that contradict the first."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from lakehouse.local.event_text import encode, message
from lakehouse.proof.event_rows import Rows

_NEAR = 64
"""A near copy is at most this many records behind its original."""
_SAMPLE = 64
"""One original in so many is remembered for far copies, so that memory stays bounded."""
_REMEMBERED = 4096
_FIRST = 16
"""So many remembered originals are never forgotten: their copies may come as far apart as the run is long."""
_RESEND_MS = 23 * 3_600_000
"""A re-sent event (same id, new timestamp) is recognised within 24 h; stay inside."""
_COPY_KINDS = ("duplicate", "conflict")


class Copies:
    """Remembers originals and makes copies of them; choices depend on positions only, not on how rows are cut."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, Rows]] = deque()
        self._first: list[Rows] = []
        self._sample: list[Rows] = []
        self._indexes: list[int] = []
        """Position of each row of the sample, ascending; the first ones' positions are `_first_indexes`."""
        self._first_indexes: list[int] = []
        self._seen = 0

    def add(self, start: int, rows: Rows) -> None:
        """Make rows `start` and on known, before their own specials are made; all rows before them are finished."""
        self._remember(start)
        self._recent.append((start, rows))
        while len(self._recent) > 1 and self._recent[1][0] <= start - _NEAR:
            self._recent.popleft()

    def duplicate(self, rows: Rows, start: int, at: int, pick: int) -> None:
        """Make row `at` of the rows `start` and on a copy of an earlier event; the first rows of all stay as they are."""
        way = pick % 10
        source = self._far(start + at, pick // 10) if way in (4, 5, 6) else self._near(start + at, pick // 10)
        if source is None:
            return
        kafka_ms, other_key = rows.kafka_ms[at], rows.key[at]
        first = source[1].kafka_ms[source[0]]
        _copy(rows, at, *source)
        rows.kind[at] = "duplicate_far" if way in (4, 5, 6) else "duplicate_near"
        if way == 7:
            rows.kind[at] = "duplicate_other_key"
            rows.key[at] = other_key if other_key != rows.key[at] else b"retry-" + (other_key or b"")
        elif way == 8:
            rows.kind[at] = "duplicate_earlier"
            rows.kafka_ms[at] = max(first - 1 - pick // 640 % 5000, 1)
        elif way == 9 and rows.rule[at] is None and 0 <= kafka_ms - first < _RESEND_MS:
            self._resend(rows, at, kafka_ms - 1 - pick // 640 % 2000)

    def conflict(self, rows: Rows, start: int, at: int, pick: int) -> None:
        """Make row `at` another story under the id and time of an earlier event."""
        source = self._near(start + at, pick)
        if source is None:
            return
        _copy(rows, at, *source)
        rows.kind[at] = "conflict"
        status, sent = rows.status_code[at], rows.response_bytes[at]
        rows.status_code[at] = 500 if status != 500 else 200
        rows.response_bytes[at] = (sent or 0) + 1 + pick // 64 % 1000
        rows.value[at] = encode(message(rows.event(at)))
        if rows.rule[at] == "SLV-102":  # the unknown field is not in the new text
            rows.rule[at] = None

    def _resend(self, rows: Rows, at: int, event_ms: int) -> None:
        rows.kind[at] = "duplicate_resent"
        rows.event_ms[at] = event_ms
        rows.value[at] = encode(message(rows.event(at)))

    def _near(self, index: int, pick: int) -> tuple[int, Rows] | None:
        """Find an original 1 to `_NEAR` records back; the choice falls through to older ones, then to none."""
        oldest = max(index - _NEAR, 0)
        for earlier in range(index - 1 - pick % _NEAR, oldest - 1, -1):
            found = self._at(earlier)
            if found is not None and _is_original(found[1], found[0]):
                return found
        return None

    def _far(self, index: int, pick: int) -> tuple[int, Rows] | None:
        """Find a remembered original more than `_NEAR` records back, one in four times of the run's very first ones."""
        self._remember(index - _NEAR)
        pool, indexes = (self._first, self._first_indexes) if pick % 4 == 0 else (self._sample, self._indexes)
        low = 0 if pool is self._first else bisect_left(indexes, index - _SAMPLE * _REMEMBERED)
        known = bisect_left(indexes, index - _NEAR) - low
        return (0, pool[low + pick // 4 % known]) if known > 0 else self._near(index, pick)

    def _remember(self, end: int) -> None:
        """Sample the finished rows before `end` that were not sampled yet."""
        for index in range(-(-self._seen // _SAMPLE) * _SAMPLE, end, _SAMPLE):
            found = self._at(index)
            if found is None or not _is_original(found[1], found[0]):
                continue
            row = found[1].single(found[0])
            if len(self._first) < _FIRST:
                self._first.append(row)
                self._first_indexes.append(index)
            self._sample.append(row)
            self._indexes.append(index)
        self._seen = max(self._seen, end)
        if len(self._sample) > 4 * _REMEMBERED:
            del self._sample[: 2 * _REMEMBERED], self._indexes[: 2 * _REMEMBERED]

    def _at(self, index: int) -> tuple[int, Rows] | None:
        for start, rows in reversed(self._recent):
            if start <= index:
                return (index - start, rows) if index - start < len(rows) else None
        return None


def _is_original(rows: Rows, at: int) -> bool:
    return rows.expected[at] == "event" and not rows.kind[at].startswith(_COPY_KINDS)


def _copy(rows: Rows, at: int, source_at: int, source: Rows) -> None:
    """Make row `at` the record `source[source_at]`, but for its Kafka timestamp."""
    rows.value[at], rows.key[at] = source.value[source_at], source.key[source_at]
    rows.rule[at] = source.rule[source_at]
    rows.set_event(at, source.event(source_at))
