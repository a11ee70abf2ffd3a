"""What is wrong with a checkpoint: one sentence each, how bad it is, and the playbook to follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]

BROKEN = "checkpoint-lost"
RETENTION = "retention-overrun"
KAFKA = "kafka-outage"
ROLLBACK = "bad-deploy"
CONTRACT = "table-contract"

LOG_LOST = "log-lost"
"""Id of the finding that the source has lost the end of its log."""
SOURCE_GAP = "source-gap"
"""Id of the finding that versions of the source which come next cannot be read any more, though its rows are all there."""
RUN_BACK = "offsets-run-back"
"""Id of the finding that a batch ends before the one before it."""


@dataclass(frozen=True)
class Finding:
    """`error`: going on fails or loses records; `warning`: it goes on, but something happened to it; `info`: no finding."""

    id: str
    severity: Severity
    message: str
    playbook: str | None = None


@dataclass(frozen=True)
class LostRange:
    """Offsets of a partition that Kafka does not hold any more; `first` and `last` both belong to it."""

    partition: int
    first: int
    last: int

    @property
    def count(self) -> int:
        """Offsets in the range; records are no more than that."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"partition {self.partition}: {self.first} to {self.last} ({self.count:,})"


def lost_ranges(wanted: Mapping[int, int], held: Mapping[int, int]) -> tuple[LostRange, ...]:
    """Compare the next offset of each partition with the first that Kafka holds, and give what lies between."""
    return tuple(
        LostRange(partition, offset, held[partition] - 1)
        for partition, offset in sorted(wanted.items())
        if partition in held and held[partition] > offset
    )


def cut_short(wanted: Mapping[int, int], ends: Mapping[int, int]) -> list[str]:
    """Name the partitions whose end in Kafka lies below the next offset wanted, or that Kafka does not have."""
    return [
        f"partition {partition}: Kafka ends at {ends[partition]}, expected at least {offset}"
        if partition in ends
        else f"partition {partition}: Kafka has none, expected at least offset {offset}"
        for partition, offset in sorted(wanted.items())
        if ends.get(partition, -1) < offset
    ]


def listed(things: Iterable[object]) -> str:
    """Join things for a sentence."""
    return "; ".join(str(thing) for thing in things)


def batches(ids: Iterable[int]) -> str:
    """Name batches for a sentence: `3`, or `3 to 7` where they follow each other, otherwise each."""
    found = sorted(ids)
    if len(found) > 1 and found == list(range(found[0], found[-1] + 1)):
        return f"{found[0]} to {found[-1]}"
    return ", ".join(map(str, found))
