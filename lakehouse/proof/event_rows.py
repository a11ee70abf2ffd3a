"""Records on their way to Kafka, by column, with what the oracle must know about each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

Expected = Literal["event", "dead_letter", "tombstone"]

EVENT_COLUMNS = (
    "event_id",
    "event_ms",
    "customer_id",
    "api_key_id",
    "endpoint",
    "method",
    "status_code",
    "response_time_ms",
    "request_bytes",
    "response_bytes",
    "region",
)


@dataclass
class Rows:
    """Records in the order of sending; all lists are equally long.

    `rule` is the id of the rule that a dead letter breaks, or of the warning that an event gets. The columns from
    `event_id` on are what Silver must read, and None in all but events. Times are milliseconds since the epoch.
    """

    value: list[bytes | None] = field(default_factory=list)
    key: list[bytes | None] = field(default_factory=list)
    kafka_ms: list[int] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    expected: list[Expected] = field(default_factory=list)
    rule: list[str | None] = field(default_factory=list)
    event_id: list[str | None] = field(default_factory=list)
    event_ms: list[int | None] = field(default_factory=list)
    customer_id: list[str | None] = field(default_factory=list)
    api_key_id: list[str | None] = field(default_factory=list)
    endpoint: list[str | None] = field(default_factory=list)
    method: list[str | None] = field(default_factory=list)
    status_code: list[int | None] = field(default_factory=list)
    response_time_ms: list[float | None] = field(default_factory=list)
    request_bytes: list[int | None] = field(default_factory=list)
    response_bytes: list[int | None] = field(default_factory=list)
    region: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.value)

    def single(self, at: int) -> Rows:
        """A copy of row `at` alone."""
        return Rows(**{column.name: [getattr(self, column.name)[at]] for column in fields(self)})

    def event(self, at: int) -> dict[str, Any]:
        """The event columns of row `at`."""
        return {name: getattr(self, name)[at] for name in EVENT_COLUMNS}

    def set_event(self, at: int, event: dict[str, Any]) -> None:
        """Make row `at` the event with these columns."""
        self.expected[at] = "event"
        for name, value in event.items():
            getattr(self, name)[at] = value

    def set_rejected(self, at: int, expected: Expected, rule: str | None) -> None:
        """Make row `at` a record that never becomes an event."""
        self.expected[at] = expected
        self.rule[at] = rule
        for name in EVENT_COLUMNS:
            getattr(self, name)[at] = None
