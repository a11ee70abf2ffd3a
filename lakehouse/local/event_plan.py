"""What to produce: how many events, when, and which share of them is late, copied or broken."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from pipelines.lake.errors import UsageError
from pipelines.lake.settings import Settings

HISTORIC_EVENTS_PER_SECOND = 2000
MAX_CUSTOMERS = 100_000
MAX_ENDPOINTS = 10_000


@dataclass(frozen=True)
class Mix:
    """Shares of all records, each 0 to 1, together at most 1; the rest are ordinary events."""

    late: float = 0.01
    duplicate: float = 0.02
    conflict: float = 0.001
    malformed: float = 0.005
    tombstone: float = 0.001
    out_of_order: float = 0.05
    skew: float = 0.002
    unusual: float = 0.002
    """Valid, but written as few producers do: unknown fields, other key order, escapes, an offset for Z."""

    def __post_init__(self) -> None:
        shares = {share.name: getattr(self, share.name) for share in fields(self)}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                msg = f"The ratio `{name}` is {value:g}, expected a share from 0 to 1; correct it."
                raise UsageError(msg)
        if math.fsum(shares.values()) > 1 + 1e-9:
            msg = f"The ratios add up to {math.fsum(shares.values()):g}, expected at most 1; lower some of them."
            raise UsageError(msg)

    @classmethod
    def clean(cls) -> Mix:
        """Ordinary events only."""
        return cls(late=0, duplicate=0, conflict=0, malformed=0, tombstone=0, out_of_order=0, skew=0, unusual=0)


@dataclass(frozen=True)
class Limits:
    """Where the pipeline draws its lines; boundary cases are made around them."""

    late_after_ms: int = 7_200_000
    skew_after_ms: int = 300_000
    max_event_bytes: int = 262_144

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that the settings give Silver."""
        silver = settings.silver
        return cls(silver.late_after_seconds * 1000, silver.skew_after_seconds * 1000, silver.max_event_bytes)


@dataclass(frozen=True)
class ProducePlan:
    """One run of the producer.

    Without `rate` the records get Kafka timestamps on a schedule of `span_seconds` (default: 2000 events/s) that starts
    at `start_time` or ends now, and are sent as fast as they go. With `rate` (events/s) they are sent live, stamped now.
    With `access_log` the events are that file's lines (the first `count`; None: all) and the mix does not apply;
    their Kafka timestamps are always the log's.
    """

    count: int | None = None
    seed: int = 0
    rate: float | None = None
    start_time: datetime | None = None
    span_seconds: float | None = None
    mix: Mix = field(default_factory=Mix)
    customers: int = 1000
    endpoints: int = 40
    access_log: Path | None = None
    pseudonym_key: bytes | None = field(default=None, repr=False)
    """Secret of the pseudonyms in events of an access log; None: the one of the state folder."""

    def __post_init__(self) -> None:
        if self.count is None and self.access_log is None:
            msg = "The plan has no count of events and no access log; give one of them."
            raise UsageError(msg)
        _require(self.count is None or self.count >= 0, f"The count is {self.count}, expected 0 or more; correct it.")
        _require(self.rate is None or self.rate > 0, f"The rate is {self.rate}, expected more than 0 events/s; correct it.")
        _require(
            self.span_seconds is None or self.span_seconds > 0,
            f"The span is {self.span_seconds}, expected more than 0 seconds; correct it.",
        )
        _require(
            1 <= self.customers <= MAX_CUSTOMERS,
            f"There are {self.customers} customers to choose from, expected 1 to {MAX_CUSTOMERS}; correct it.",
        )
        _require(
            1 <= self.endpoints <= MAX_ENDPOINTS,
            f"There are {self.endpoints} endpoints to choose from, expected 1 to {MAX_ENDPOINTS}; correct it.",
        )
        scheduled = self.start_time is not None or self.span_seconds is not None
        _require(
            not (scheduled and (self.rate is not None or self.access_log is not None)),
            "A start time or span is for generated history, expected without a rate and without an access log; leave it out.",
        )
        _require(
            self.start_time is None or (self.start_time.tzinfo is not None and self.start_time.year >= 1971),
            f"The start time is {self.start_time}, expected an instant with its offset, from 1971 on; correct it.",
        )

    def schedule(self, now: datetime) -> tuple[float, float]:
        """Start of the historic schedule and step between records, both in milliseconds, for a run that starts at `now`."""
        count = self.count or 0
        span_ms = (self.span_seconds or count / HISTORIC_EVENTS_PER_SECOND) * 1000
        end_ms = now.astimezone(UTC).timestamp() * 1000
        start_ms = self.start_time.timestamp() * 1000 if self.start_time else end_ms - span_ms
        return start_ms, span_ms / max(count, 1)


def _require(fine: bool, sentence: str) -> None:
    if not fine:
        raise UsageError(sentence)
