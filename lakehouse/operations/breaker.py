"""Tells what Silver's circuit breaker holds back and why, and accepts it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.lake.errors import UsageError
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.settings import Settings
from pipelines.silver.breaker.breaker import Limits, merge_ends
from pipelines.silver.breaker.breaker_store import BreakerStore, Transition


@dataclass(frozen=True)
class Acceptance:
    """What a reset would let pass: records that Bronze has and Silver has not read, by partition the end (exclusive)."""

    ends: dict[int, int]
    waiting: int
    last: Transition


def accept(settings: Settings, accepted: Acceptance, reason: str) -> None:
    """Close the breaker for what Bronze holds now; the reason is recorded."""
    last = accepted.last
    closed = Transition(datetime.now(UTC), last.to_state, "closed", last.tally, f"reset: {reason}", accepted=accepted.ends)
    BreakerStore(settings).append(closed)


def describe(settings: Settings, newest: list[Transition]) -> dict[str, Any]:
    """What `show` says, as plain values; `newest` are the last transitions, the newest first."""
    last = newest[0] if newest else None
    is_open = last is not None and last.to_state != "closed"
    return {
        "state": last.to_state if last else "closed",
        "enabled": settings.breaker.enabled,
        "since": last.at if last else None,
        "retry_at": last.breaker().retry_at(Limits.of(settings.breaker)) if last and last.to_state == "open" else None,
        "waiting": find_acceptance(settings, last).waiting if is_open else None,
        "changes": [
            {
                "at": change.at,
                "from": change.from_state,
                "to": change.to_state,
                "share": change.tally.share,
                "records": change.tally.records,
                "dead_letters": change.tally.dead_letters,
                "batch": change.batch_id,
                "offsets": change.offsets,
                "reason": change.reason,
            }
            for change in newest
        ],
    }


def find_acceptance(settings: Settings, last: Transition | None) -> Acceptance:
    """What a reset would accept; raises UsageError where the breaker is closed."""
    if last is None or last.to_state == "closed":
        msg = "The circuit breaker is closed, so there is nothing to reset; `lakehouse breaker show` tells what it did."
        raise UsageError(msg)
    ledger = Ledger(settings)
    ends = merge_ends(merge_ends(ledger.end_offsets("bronze"), last.held_ends()), last.accepted)
    read = ledger.end_offsets("silver")
    first = {int(partition): start for partition, (start, _) in last.offsets.items()}
    waiting = sum(max(0, end - read.get(partition, first.get(partition, 0))) for partition, end in ends.items())
    return Acceptance(ends, waiting, last)
