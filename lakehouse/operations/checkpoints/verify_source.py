"""Whether the source still holds what a checkpoint will read next: Kafka's offsets, or a Delta table's versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lakehouse.operations.checkpoints.findings import (
    BROKEN,
    CONTRACT,
    KAFKA,
    LOG_LOST,
    RETENTION,
    SOURCE_GAP,
    Finding,
    Severity,
    cut_short,
    listed,
    lost_ranges,
)
from lakehouse.operations.checkpoints.lake_tables import find_table, table_id
from lakehouse.operations.checkpoints.reading import CheckpointState
from pipelines.lake.checkpoint.spark_files import DeltaPosition, KafkaPosition
from pipelines.lake.contract.source_gaps import find_gap
from pipelines.lake.delta_log.versions import log_begins
from pipelines.lake.errors import LakehouseError, UnreadableError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.settings import Settings
from pipelines.lake.tables import SILVER, TableName


def next_offsets(state: CheckpointState) -> dict[int, int] | None:
    """Kafka offsets that the next batch begins with; None where neither files nor marker tell."""
    position = state.end(state.last_committed)
    if isinstance(position, KafkaPosition):
        return position.offsets
    tree = _starting(state) if state.last_committed is None else {}
    try:
        return {int(partition): int(offset) for partition, offset in tree.items()} if tree else None
    except (TypeError, ValueError):
        return None


def next_version(state: CheckpointState) -> int | None:
    """Version of the Delta source that the next batch begins with; None where the whole table is read."""
    position = state.end(state.last_committed)
    if isinstance(position, DeltaPosition):
        return None if position.is_snapshot else position.version
    tree = _starting(state) if state.last_committed is None else {}
    found = next((value for key, value in tree.items() if key.endswith("_version")), None)
    return found if isinstance(found, int) else None


def _starting(state: CheckpointState) -> dict[str, Any]:
    try:
        tree = json.loads(state.marker.starting) if state.marker else {}
    except ValueError:  # `earliest`, `latest` or nothing
        return {}
    return tree if isinstance(tree, dict) else {}


def check_source(settings: Settings, state: CheckpointState, kafka: TopicState | LakehouseError | None) -> Iterator[Finding]:
    """Compare with the source; `kafka` is needed for Bronze only, an error of it is an info."""
    if state.marker is None or state.marker.job not in JOBS:
        return
    source = JOBS[state.marker.job].source
    if source is not None:
        yield from _check_delta(settings, state, source)
    elif isinstance(kafka, TopicState):
        yield from _check_kafka(state, kafka)
    else:
        severity: Severity = "warning" if isinstance(kafka, UnreadableError) else "info"
        yield Finding("kafka-silent", severity, f"Not compared with Kafka: {kafka}", KAFKA)


def _check_kafka(state: CheckpointState, topic: TopicState) -> Iterator[Finding]:
    if state.marker and state.marker.source != topic.topic_id:
        message = (
            f"The checkpoint is of the topic with id {state.marker.source}, but {topic.topic} has id {topic.topic_id}: it was "
            "made anew, and its offsets mean other records."
        )
        yield Finding("topic-made-anew", "error", message, KAFKA)
        return
    position, committed = state.end(state.last_planned), next_offsets(state) or {}
    planned = position.offsets if isinstance(position, KafkaPosition) else {}
    # A batch may have been planned after the log was cut: it ends where Kafka does now, which lies before what is committed.
    reached = {part: max(committed.get(part, 0), planned.get(part, 0)) for part in committed.keys() | planned.keys()}
    if short := cut_short(reached, topic.end):
        message = f"Kafka has lost the end of its log ({listed(short)}): records are gone, or the topic is another one."
        yield Finding(LOG_LOST, "error", message, KAFKA)
    if lost := lost_ranges(committed, topic.start):
        message = f"Kafka's retention passed the reader; offsets that nobody read are gone: {listed(lost)}."
        yield Finding("retention-passed", "error", message, RETENTION)


def _check_delta(settings: Settings, state: CheckpointState, name: TableName) -> Iterator[Finding]:
    table, version = find_table(settings, name), next_version(state)
    if table is None:
        yield Finding("no-source", "error", f"The table {name}, which the checkpoint reads, does not exist.", BROKEN)
        return
    position = state.end(state.last_planned)
    if isinstance(position, DeltaPosition) and position.table_id != table_id(table):
        message = f"The offsets are of the table with id {position.table_id}, but {name} has id {table_id(table)}: another table."
        yield Finding("foreign-offsets", "error", message, BROKEN)
        return
    if version is None:
        return
    begins = log_begins(name.path(settings))
    if version > table.version() + 1:
        message = f"The checkpoint goes on at version {version} of {name}, which ends at {table.version()}: its log was cut."
        yield Finding(LOG_LOST, "error", message, BROKEN)
    elif version < begins:
        message = f"The checkpoint goes on at version {version} of {name}, whose log begins at {begins}: commits of it are gone."
        yield Finding("retention-passed", "error", message, RETENTION)
    elif gap := find_gap(table, version, change_feed=name == SILVER):
        message = (
            f"The checkpoint goes on at version {version} of {name}, and version {gap.version} cannot be read, as {gap.why}; the "
            "table has all rows still."
        )
        yield Finding(SOURCE_GAP, "error", message, CONTRACT)
