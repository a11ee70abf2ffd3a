"""Silver's circuit breaker as a pure state machine: no clock, no tables, no Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from pipelines.lake.settings import BreakerSettings

State = Literal["closed", "open", "half_open"]
Ends = Mapping[int, int]
"""For each Kafka partition the offset up to which (exclusive) something holds."""


@dataclass(frozen=True)
class Limits:
    """When the breaker opens, and for how long it stays so."""

    share: float
    min_records: int
    window: timedelta
    cool_down: timedelta

    @staticmethod
    def of(settings: BreakerSettings) -> Limits:
        """The limits that the settings give."""
        return Limits(
            share=settings.share,
            min_records=settings.min_records,
            window=timedelta(seconds=settings.window_seconds),
            cool_down=timedelta(seconds=settings.cool_down_seconds),
        )


@dataclass(frozen=True)
class Tally:
    """Records that were judged, and how many of them became dead letters. Copies and tombstones are not dead letters."""

    records: int = 0
    dead_letters: int = 0

    @property
    def share(self) -> float:
        """Dead letters among the records; 0 where there is no record."""
        return self.dead_letters / self.records if self.records else 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.records + other.records, self.dead_letters + other.dead_letters)


NOTHING = Tally()


@dataclass(frozen=True)
class Sample:
    """What one batch that was written counted, and when it was judged; `batch` names it among all generations."""

    batch: str
    at: datetime
    tally: Tally


@dataclass(frozen=True)
class Breaker:
    """A state and what it rests on. Each method gives the next breaker; nobody is told but the caller.

    closed: batches are written. open: none is, until the cool-down is over. half_open: the next batch is a probe.
    """

    state: State
    since: datetime
    accepted: Ends = field(default_factory=dict)
    """Records below these offsets may be dead letters: they were accepted when the breaker closed, and do not count."""
    samples: tuple[Sample, ...] = ()

    def retry_at(self, limits: Limits) -> datetime:
        """When an open breaker lets a probe through."""
        return self.since + limits.cool_down

    def resume(self, limits: Limits, now: datetime) -> Breaker:
        """Become half-open where the cool-down is over."""
        if self.state == "open" and now >= self.retry_at(limits):
            return replace(self, state="half_open", since=now, samples=())
        return self

    def window(self, limits: Limits, now: datetime) -> Tally:
        """All batches of the window together."""
        return sum((sample.tally for sample in self.samples if sample.at > now - limits.window), NOTHING)

    def judge(self, limits: Limits, batch: Tally, now: datetime, *, landed: Tally = NOTHING) -> Breaker:
        """Decide about a batch that is not written yet: it may be, if the result is closed.

        A batch below the limit only betters the window, so it never opens a closed breaker. In half-open the batch that was
        held comes again, and its records do not get better by waiting: the breaker closes as well where the records that
        have `landed` in Bronze since then are below the limit, for then what made the flood is over.
        """
        if self.state == "open":
            return self
        bad = batch.share >= limits.share
        if self.state == "half_open":
            is_over = bool(landed.records) and landed.share < limits.share
            return self.opened(now) if bad and not is_over else self.closed(now, self.accepted)
        total = self.window(limits, now) + batch
        if bad and total.records >= limits.min_records and total.share >= limits.share:
            return self.opened(now)
        return self

    def opened(self, now: datetime) -> Breaker:
        """Hold everything back from now on."""
        return replace(self, state="open", since=now, samples=())

    def closed(self, now: datetime, accepted: Ends) -> Breaker:
        """Let everything pass from now on, with a new window; records below `accepted` are not counted."""
        return replace(self, state="closed", since=now, accepted=merge_ends(self.accepted, accepted), samples=())

    def counted(self, limits: Limits, sample: Sample) -> Breaker:
        """Note a batch that passed; one that runs again takes its own place."""
        kept = (known for known in self.samples if known.batch != sample.batch and known.at > sample.at - limits.window)
        return replace(self, samples=(*kept, sample))


def merge_ends(left: Ends, right: Ends) -> dict[int, int]:
    """The further end of each partition."""
    return {partition: max(left.get(partition, 0), right.get(partition, 0)) for partition in left.keys() | right.keys()}
