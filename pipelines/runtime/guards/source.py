"""Guards of the source: it is there, it is the same one, and it has what the job reads next."""

from __future__ import annotations

from pipelines.archive.guard import refuse_unread
from pipelines.lake.checkpoint.progress import next_position
from pipelines.lake.checkpoint.spark_files import DeltaPosition
from pipelines.lake.contract.sentences import gap_sentence
from pipelines.lake.contract.source_gaps import Gap, find_gap, find_snapshot_gap
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.delta_log.versions import log_begins
from pipelines.lake.errors import ContractError, DataLossError, UsageError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.kafka.topic import TOPIC_ID_PROPERTY, refuse_recreated_topic
from pipelines.lake.ledger.known_gaps import passed_by_retention
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import is_empty
from pipelines.lake.tables import BRONZE
from pipelines.runtime import delta
from pipelines.runtime.coverage import read_coverage
from pipelines.runtime.flags import parse_version
from pipelines.runtime.guards.start import Start


def refuse_absent_source(start: Start) -> None:
    """Raise UsageError where the job reads a table that is not there."""
    if start.source is not None:
        what = f"the {start.source.layer.capitalize()} table"
        delta.require_table(start.spark, start.source.path(start.settings), what)


def refuse_other_topic(start: Start) -> None:
    """Raise DataLossError where Kafka's topic is not the one whose records Bronze has."""
    path = BRONZE.path(start.settings)
    if start.topic is not None and delta.is_delta_table(start.spark, path):
        known = delta.table_property(start.spark, path, TOPIC_ID_PROPERTY)
        refuse_recreated_topic(path, known, start.topic.topic, start.topic.topic_id)


def refuse_short_log(start: Start) -> None:
    """Raise UsageError where a new checkpoint would begin at a version that the source's log no longer has."""
    if start.source is None or start.first_version is None:
        return
    if not start.is_replay and not is_empty(open_storage(start.checkpoint_path)):
        return
    begins = log_begins(start.source.path(start.settings))
    if start.first_version < begins:
        job, source = start.job.capitalize(), start.source.layer.capitalize()
        msg = (
            f"{job} would begin at version {start.first_version} of {source}, but {source}'s log has the versions from {begins} "
            f"on alone; run `lakehouse checkpoint rebuild {start.job}`, which goes on where {job} stopped, or `lakehouse rebuild "
            f"{start.job}`, or give --starting-offsets with a version that is there."
        )
        raise UsageError(msg)


def refuse_unread_archive(start: Start) -> None:
    """Raise UsageError where records that the stream has not read are in Bronze's archive alone."""
    if start.source == BRONZE and not start.is_replay:
        refuse_unread(start.settings)


def refuse_lost_source(start: Start) -> None:
    """Raise ContractError where the source has lost what the checkpoint reads next."""
    if start.is_replay:
        return
    if start.open_checkpoint.is_new and start.source is not None and start.first_version is not None:
        # Made from what the tables hold, after the old one was lost: it knows better than the flags where it begins.
        known = parse_version(start.open_checkpoint.starting, f"{start.source.layer}_version")
        first = start.first_version if known is None else known
        gap = find_gap(
            existing_table(absolute(start.source.path(start.settings))), first, change_feed=JOBS[start.job].reads_changes
        )
    else:
        gap = gap_of(start.settings, start.job, start.checkpoint_path)
    if gap is not None:
        raise ContractError(gap_sentence(start.job, gap))


def gap_of(settings: Settings, job: str, checkpoint: str) -> Gap | None:
    """What the source of `job` has lost of what the stream on `checkpoint` reads next; None where it can go on, or is new."""
    position = next_position(open_storage(checkpoint))
    source = JOBS[job].source if job in JOBS else None
    if source is None or not isinstance(position, DeltaPosition):
        return None
    table = existing_table(absolute(source.path(settings)))
    if position.is_snapshot:
        return find_snapshot_gap(table, position.version)
    return find_gap(table, position.version, change_feed=JOBS[job].reads_changes)


def refuse_passed_offsets(start: Start) -> None:
    """Raise DataLossError where a new checkpoint would begin behind records that Kafka deleted before Bronze read them.

    A checkpoint that is there makes Spark say it (`failOnDataLoss`); a new one knows of no offset that is missing. A loss on
    record is no reason to stop, nor a start at given offsets.
    """
    checkpoint, topic = start.open_checkpoint, start.topic
    if topic is None or start.is_replay or not checkpoint.is_new or start.starting or checkpoint.starting:
        return
    known = start.ledger.end_offsets(start.job)
    if all(first <= known.get(partition, 0) for partition, first in topic.start.items()):
        return
    covered = read_coverage(start.spark, BRONZE.path(start.settings), start.ledger)
    if gaps := passed_by_retention(start.settings, topic.topic, topic.start, covered):
        msg = (
            f"Kafka no longer holds what comes after Bronze's last records ({'; '.join(map(str, gaps))}), and a new checkpoint "
            "would begin behind it; look for another source of these records, or run `lakehouse checkpoint rebuild bronze "
            "--accept-loss`, which records the loss and goes on (playbooks/retention-overrun.md)."
        )
        raise DataLossError(msg)
