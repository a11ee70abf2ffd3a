"""An earlier state of a checkpoint under a new generation: the job reads the later batches again.

Never in place: under the old transaction app id Delta would silently skip the batches that are repeated. Reading again is
harmless by what the jobs do: Bronze drops coordinates that it has, Silver looks at the tables, Gold is computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lakehouse.operations.checkpoints.copying import CopyPlan, plan_generation, require_empty, require_marker
from lakehouse.operations.checkpoints.findings import cut_short, listed, lost_ranges
from lakehouse.operations.checkpoints.holders import refuse_used
from lakehouse.operations.checkpoints.lake_tables import ledger_reader, require_table, table_id
from lakehouse.operations.checkpoints.reading import CheckpointState, read_checkpoint
from lakehouse.operations.checkpoints.topic import DECIDING_SECONDS
from pipelines.lake.checkpoint.identity import Marker
from pipelines.lake.checkpoint.spark_files import DeltaPosition, KafkaPosition
from pipelines.lake.delta_log.versions import log_begins
from pipelines.lake.errors import CheckpointError, DataLossError, UsageError
from pipelines.lake.job_tables import JOBS, job_tables
from pipelines.lake.kafka.topic import ask_topic
from pipelines.lake.settings import Settings
from pipelines.lake.storage.protocol import Storage


@dataclass(frozen=True)
class RewindPlan:
    """The copy, the batches whose input will be read again, and how many records that is (None: the ledger does not tell)."""

    copy: CopyPlan
    job: str
    to_batch: int
    batches_again: list[int]
    records_again: int | None


def plan_rewind(settings: Settings, source: Storage, target: Storage, to_batch: int) -> RewindPlan:
    """Plan a checkpoint that ends with `to_batch`; nothing is written.

    Raises UsageError (no checkpoint, no such batch, target not empty), DataLossError where the source does not hold what comes
    after the batch any more, TransientError where Kafka does not answer.
    """
    state = read_checkpoint(source, checksums=True)
    marker = require_marker(state)
    job_tables(marker.job)
    require_empty(target)
    refuse_used(source.path)
    _require_batch(state, to_batch)
    if state.has_state:
        msg = f"The checkpoint {source.path} keeps operators' state, which cannot be wound back by copying; rebuild it instead."
        raise CheckpointError(msg)
    records = _records_after(settings, state, marker, to_batch)
    names = [name for name in state.entries if _belongs(name, to_batch)]
    again = [batch for batch in state.planned_ids if batch > to_batch]
    return RewindPlan(plan_generation(source, target, state, names), marker.job, to_batch, again, records)


def _require_batch(state: CheckpointState, to_batch: int) -> None:
    done = [batch for batch in state.planned_ids if batch in state.commit_ids]
    if to_batch not in done:
        held = f"{done[0]} to {done[-1]}" if done else "none"
        msg = f"Batch {to_batch} is not among the finished batches that {state.path} holds ({held}); name one of these."
        raise UsageError(msg)
    needed = {f"offsets/{to_batch}", f"commits/{to_batch}", f"offsets/{to_batch - 1}"}
    for file in state.broken:
        if file.name in needed:
            msg = f"The file {file.name} of {state.path} {file.problem}; rewind to an earlier batch, or rebuild."
            raise CheckpointError(msg)


def _belongs(name: str, to_batch: int) -> bool:
    """Whether a file is of the batches up to `to_batch`, or of none."""
    folder, _, file = name.rpartition("/")
    if folder in ("offsets", "commits"):
        number = file.removeprefix(".").removesuffix(".crc")
        return number.isdecimal() and int(number) <= to_batch
    return folder.startswith("sources")


def _records_after(settings: Settings, state: CheckpointState, marker: Marker, to_batch: int) -> int | None:
    end = state.end(to_batch)
    if isinstance(end, KafkaPosition):
        _require_kafka(settings, marker, end)
        last = state.end(state.last_committed)
        if not isinstance(last, KafkaPosition):
            return None
        return sum(max(0, offset - end.offsets.get(partition, 0)) for partition, offset in last.offsets.items())
    if isinstance(end, DeltaPosition):
        _require_versions(settings, marker, end)
    again = [batch for batch in state.commit_ids if batch > to_batch]
    return _records_in_ledger(settings, marker, again)


def _require_kafka(settings: Settings, marker: Marker, end: KafkaPosition) -> None:
    topic = ask_topic(settings, DECIDING_SECONDS)
    if topic.topic_id != marker.source:
        msg = (
            f"The checkpoint is of a topic with id {marker.source}, but Kafka's {topic.topic} has id {topic.topic_id}: it was "
            "made anew, and the offsets mean other records; a rewind is not possible (playbooks/kafka-outage.md)."
        )
        raise DataLossError(msg)
    if short := cut_short(end.offsets, topic.end):
        msg = f"Kafka has lost the end of its log ({listed(short)}); a rewind is not possible, see playbooks/kafka-outage.md."
        raise DataLossError(msg)
    if lost := lost_ranges(end.offsets, topic.start):
        msg = (
            f"Kafka no longer holds the offsets after this batch: {listed(lost)}; rewind to a later batch, or replay from "
            "Bronze, which may hold them (playbooks/retention-overrun.md)."
        )
        raise DataLossError(msg)


def _require_versions(settings: Settings, marker: Marker, end: DeltaPosition) -> None:
    name = JOBS[marker.job].source
    if name is None:
        msg = f"The checkpoint of {marker.job} holds versions of a table, expected Kafka's offsets; it is broken, rebuild it."
        raise CheckpointError(msg)
    table = require_table(settings, name)
    if end.table_id != table_id(table):
        msg = f"The offsets are of the table with id {end.table_id}, but {name} has id {table_id(table)}; rebuild the checkpoint."
        raise CheckpointError(msg)
    begins = log_begins(name.path(settings))
    if not end.is_snapshot and end.version < begins:
        msg = (
            f"The log of {name} begins at version {begins}, so versions {end.version} to {begins - 1} cannot be read again; "
            "rewind to a later batch, or rebuild the checkpoint (playbooks/checkpoint-lost.md)."
        )
        raise DataLossError(msg)


def _records_in_ledger(settings: Settings, marker: Marker, again: Sequence[int]) -> int | None:
    rows = ledger_reader(settings).rows(job=marker.job, generation=marker.generation)
    if again and not rows:
        return None
    return sum(row.rows_read for row in rows if row.batch_id in set(again))
