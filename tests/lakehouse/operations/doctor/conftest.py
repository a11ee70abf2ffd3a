"""Facts of a sound lake, of which each test changes one thing; and the hand-made lakes of the checkpoints' tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakehouse.operations.doctor.commands import Commands
from lakehouse.operations.doctor.facts import Disk, Facts, HeldBy, StreamCheckpoint
from lakehouse.operations.status.facts import LakeStatus, PartitionStatus, TableStatus
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.lease.protocol import Holder
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, SILVER
from tests.lakehouse.operations.checkpoints.conftest import lake, on_topic

__all__ = ["lake", "on_topic"]

NOW = datetime(2026, 1, 28, 12, 0, tzinfo=UTC)
TOPIC_ID = "topic-1"


def row(job: str, batch: int, offsets: Mapping[str, list[int]], **more: Any) -> LedgerRow:
    """A row of generation g, a minute old, that read as many records as offsets."""
    read = sum(stop - start for start, stop in offsets.values()) if job != "gold" else 0
    plain: dict[str, Any] = {"rows_read": read, "inserted": read, "replaced": 0, "already_present": 0, "versions": {}}
    times: dict[str, Any] = {"committed_at": NOW - timedelta(minutes=1), "duration_ms": 900}
    place: dict[str, Any] = {"job": job, "generation": "g", "batch_id": batch, "offsets": dict(offsets)}
    return LedgerRow(**{**plain, **place, **times, **more})


def held(**changes: Any) -> HeldBy:
    """A lock that a process of this minute holds."""
    is_stopped = changes.pop("is_stopped", False)
    since = (NOW - timedelta(minutes=30)).isoformat()
    plain: dict[str, Any] = {"job": "silver", "run": "g", "pid": 4711, "host": "h", "since": since}
    return HeldBy(Holder(**{**plain, **changes}), is_stopped)


def parts(*ends: tuple[int | None, int, int]) -> list[PartitionStatus]:
    """For each partition the ends of Kafka, Bronze and Silver."""
    return [PartitionStatus(n, 0 if end[0] is not None else None, *end) for n, end in enumerate(ends)]


@pytest.fixture
def sound() -> Facts:
    """Two partitions, all read by all layers, nobody at work."""
    settings = load_settings(None, environ={}, overrides={"lake.checkpoints": "ck", "kafka.bootstrap_servers": "k:9092"})
    return Facts(
        settings=settings,
        commands=Commands("my.yaml", "ck"),
        now=NOW,
        status=LakeStatus([TableStatus(str(BRONZE), 3, 30, 1, 1)], [], parts((20, 20, 20), (10, 10, 10)), None),
        topic=TopicState("t", TOPIC_ID, {0: 0, 1: 0}, {0: 20, 1: 10}),
        bronze_topic_id=TOPIC_ID,
        checkpoints={job: StreamCheckpoint(job, f"ck/{job}/g1", f"ck/{job}/g2", None) for job in ("bronze", "silver", "gold")},
        rows={
            "bronze": [row("bronze", 0, {"0": [0, 12], "1": [0, 10]}), row("bronze", 1, {"0": [12, 20], "1": [10, 10]})],
            "silver": [row("silver", 0, {"0": [0, 20], "1": [0, 10]}, versions={str(SILVER): 4})],
            "gold": [row("gold", 0, {"silver_version": [1, 4]})],
        },
        disks=(Disk("lake", 100 * 2**30, 50 * 2**30),),
    )


@pytest.fixture
def with_ends(sound: Facts) -> Callable[..., Facts]:
    """The sound lake with other ends of Kafka, Bronze and Silver for each partition."""

    def change(*ends: tuple[int | None, int, int], **more: Any) -> Facts:
        return replace(sound, status=replace(sound.status, partitions=parts(*ends)), **more)

    return change
