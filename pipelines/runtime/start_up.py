"""Starts a job: mends what it may, lets the guards look, makes what is missing, and opens the checkpoint.

Every job meets the guards here and nowhere else, in this order: `look_at_source`, then its flags, then `open_start` (a stream
or a replay) or `look_at_tables` (a batch job, which has no checkpoint).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pipelines.lake.checkpoint.identity import Checkpoint, open_checkpoint
from pipelines.lake.job_tables import job_tables
from pipelines.lake.lease.checkpoints import CheckpointLock
from pipelines.runtime import delta
from pipelines.runtime.guards.guards import refuse
from pipelines.runtime.guards.start import Moment, Start
from pipelines.runtime.mends import set_damage_aside, set_properties_back


@dataclass(frozen=True)
class Opened:
    """The locked checkpoint of a start; `versions`: of the tables with transaction ids, by name, before the guards looked."""

    checkpoint: Checkpoint
    versions: Mapping[str, int]


def look_at_source(start: Start) -> None:
    """Set damaged derived files aside, and refuse a start whose source is not there. Raises a LakehouseError."""
    if not start.dry_run:
        set_damage_aside(start.settings, (*start.reads, *(table.name for table in start.writes)))
    refuse(start, Moment.SOURCE)


def look_at_tables(start: Start) -> None:
    """Refuse a start before it makes anything, then set back properties of the tables that it writes. Raises a LakehouseError."""
    refuse(start, Moment.TABLES)
    if not start.dry_run:
        written = {table.name: start.differences[table.name] for table in start.writes}
        set_properties_back(start.spark, start.settings, written)


def open_start(start: Start, ensure_tables: Callable[[], None], lock: CheckpointLock | None = None) -> Opened:
    """Make what is missing of the tables by `ensure_tables`, and open the checkpoint; `lock`: where the caller has it already.

    The caller releases the checkpoint's lock, or gives it to the stream. Raises a LakehouseError; then no batch is written.
    """
    look_at_tables(start)
    ensure_tables()
    spark, settings, tables = start.spark, start.settings, job_tables(start.job)
    versions = {name: delta.current_version(spark, path) for name, path in tables.written_paths(settings).items()}
    checkpoint = open_checkpoint(
        start.checkpoint_path,
        job=start.job,
        source=_source_id(start),
        target=delta.table_id(spark, tables.target.path(settings)),
        starting=start.starting,
        versions=versions,
        lock=lock,
    )
    with checkpoint.lock.released_on_error():
        refuse(replace(start, checkpoint=checkpoint), Moment.CHECKPOINT)
    return Opened(checkpoint, versions)


def _source_id(start: Start) -> str:
    if start.topic is not None:
        return start.topic.topic_id
    source = job_tables(start.job).source
    if source is None:
        msg = f"The job {start.job} reads Kafka, and its start has no topic."
        raise AssertionError(msg)
    return delta.table_id(start.spark, source.path(start.settings))
