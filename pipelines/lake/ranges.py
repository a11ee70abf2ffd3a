"""The instants and magnitudes that the lake holds, from Kafka to the bill.

Each stage, reader and command holds all of this range; the rules refuse events outside of it by name, and Bronze keeps every
record's bytes and Kafka's own number for its time. `docs/ranges.md` states the same for people.
"""

from __future__ import annotations

from datetime import UTC, datetime

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
"""First instant that is held, of events and of Kafka."""
END_INSTANT = datetime(2200, 1, 1, tzinfo=UTC)
"""First instant that is not held any more: every reader's nanoseconds reach to 2262, with room for hours and days beside it."""

FIRST_INSTANT_MS = 0
MISSING_BELOW_MS = 10**10
"""A Kafka time below it (before 1970-04-26) is none: -1, 0, or seconds that a producer gave for milliseconds."""
END_INSTANT_MS = int(END_INSTANT.timestamp()) * 1000

LARGEST_SUMMED = 2**35 - 1
"""Largest value of a field that is summed (bytes of a request or an answer): 2^28 events of a customer's day, over 3,000 a
second, add up to less than 2^63, so that no sum of the bill overflows."""
