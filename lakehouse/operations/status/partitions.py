"""Says how far Kafka, Bronze and Silver are in each partition."""

from __future__ import annotations

from collections.abc import Iterator

from lakehouse.operations.status.facts import PartitionStatus
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.ledger.ranges import positions
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.tables import BRONZE


def partition_ends(topic: TopicState | None, batches: list[LedgerRow]) -> list[PartitionStatus]:
    """Offsets of the topic, and the ends of what the batches have read; without a topic Kafka's are None."""
    of_layer = {layer: positions(row for row in batches if row.job == layer) for layer in ("bronze", "silver")}
    ends = {layer: {partition: end for partition, (_, end) in found.items()} for layer, found in of_layer.items()}
    _pass_markers(ends, batches)
    found = []
    start, end, stable = (topic.start, topic.end, topic.stable) if topic is not None else ({}, {}, {})
    for part in sorted(end.keys() | ends["bronze"].keys() | ends["silver"].keys()):
        bronze, silver = (ends[layer].get(part) for layer in ("bronze", "silver"))
        found.append(PartitionStatus(part, start.get(part), end.get(part), bronze, silver, stable.get(part)))
    return found


def _pass_markers(ends: dict[str, dict[int, int]], batches: list[LedgerRow]) -> None:
    """Take Silver's ends to Bronze's where Silver has read each version of Bronze that has rows of the partition.

    Silver's ends are those of records. Bronze's are those of offsets: a transaction's marker is one, and no record.
    """
    silver = (row.versions for row in reversed(batches) if row.job == "silver")
    # The version that Silver's stream comes to next: all before it are read whole.
    comes_to = next((versions[str(BRONZE)] for versions in silver if str(BRONZE) in versions), None)
    if comes_to is None:
        return
    for partition, end in ends["bronze"].items():
        own = ends["silver"].get(partition, 0)
        unread = [first for first, stop in _unread(batches, partition, comes_to) if stop > own]
        ends["silver"][partition] = max(own, min([end, *unread]))


def _unread(batches: list[LedgerRow], partition: int, comes_to: int) -> Iterator[tuple[int, int]]:
    """Ranges [first, stop) of the partition in batches of Bronze that have rows and that Silver has not read."""
    for row in batches:
        span = row.spans.get(partition) if row.job == "bronze" else None
        version = row.versions.get(str(BRONZE))
        if span and span[1] > span[0] and row.rows_read and (version is None or version >= comes_to):
            yield span
