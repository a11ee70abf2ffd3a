"""A new generation made from what the tables hold, for a checkpoint that is lost or broken.

Only the marker is written: its `starting` tells the job where to begin. Bronze goes on after its last rows, Silver and Gold
from a version that they may have read already; all three find in the tables what they read again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lakehouse.operations.checkpoints.bronze_rows import BronzeRows
from lakehouse.operations.checkpoints.copying import require_empty, write_new
from lakehouse.operations.checkpoints.findings import LostRange, cut_short, listed, lost_ranges
from lakehouse.operations.checkpoints.holders import refuse_used
from lakehouse.operations.checkpoints.lake_tables import (
    find_table,
    ledger_reader,
    require_table,
    table_id,
    table_versions,
    topic_id,
)
from lakehouse.operations.checkpoints.starting import bronze_version_for_silver, silver_version_for_gold
from lakehouse.operations.checkpoints.topic import DECIDING_SECONDS
from pipelines.lake.checkpoint.generations import next_generation_path
from pipelines.lake.checkpoint.identity import MARKER, Marker, new_generation_id
from pipelines.lake.contract.source_gaps import find_gap
from pipelines.lake.delta_log.restores import find_restores
from pipelines.lake.delta_log.versions import log_begins
from pipelines.lake.errors import DataLossError
from pipelines.lake.job_tables import job_tables
from pipelines.lake.kafka.topic import ask_topic
from pipelines.lake.ledger.ranges import positions
from pipelines.lake.ledger.reader import LedgerReader
from pipelines.lake.ledger.voids import EVENTS, LETTERS
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.places import place_of
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import Storage
from pipelines.lake.tables import BRONZE, DLQ, SILVER, TableName


@dataclass(frozen=True)
class RebuildPlan:
    """The new marker and where it will lie. `to_read`: records that the job will read, as far as the ledger tells.

    `lost` is not empty only where the loss was accepted: these offsets are what `ops.known_gaps` has to record.
    """

    target: Storage
    marker: Marker
    to_read: int
    lost: tuple[LostRange, ...] = ()


@dataclass(frozen=True)
class _Start:
    source: str
    starting: str
    to_read: int
    lost: tuple[LostRange, ...] = ()


def plan_rebuild(settings: Settings, job: str, target: Storage | None = None, *, accept_loss: bool = False) -> RebuildPlan:
    """Plan the new checkpoint of `job`, by default in the next free `g<n>`; nothing is written.

    Raises UsageError (no such job or table, target not empty), DataLossError where Kafka does not hold what comes next, unless
    the loss is accepted, TransientError where Kafka does not answer.
    """
    tables = job_tables(job)
    target = target or open_storage(next_generation_path(settings, job))
    require_empty(target)
    refuse_used(target.path)
    start = _START[job](settings, accept_loss)
    target_id = table_id(require_table(settings, tables.target))
    marker = Marker(
        job=job,
        generation=new_generation_id(),
        source=start.source,
        target=target_id,
        starting=start.starting,
        versions=table_versions(settings, job),
    )
    return RebuildPlan(target, marker, start.to_read, start.lost)


def write_rebuild(plan: RebuildPlan) -> None:
    """Write the marker; raises CheckpointError where somebody else was faster."""
    write_new(plan.target, {MARKER: plan.marker.encode()})


def _start_bronze(settings: Settings, accept_loss: bool) -> _Start:
    table = require_table(settings, BRONZE)
    topic = ask_topic(settings, DECIDING_SECONDS)
    if topic_id(table) != topic.topic_id:
        msg = (
            f"Bronze holds topic {topic.topic} with id {topic_id(table)}, but Kafka's has id {topic.topic_id}: it was made anew, "
            "and its offsets mean other records; give the new topic a lake of its own (`lake.root`, `lake.checkpoints`); "
            "see playbooks/kafka-outage.md."
        )
        raise DataLossError(msg)
    rows = ledger_reader(settings).rows(job="bronze")
    ends = BronzeRows(table).ends(rows)
    if short := cut_short(ends, topic.end):
        msg = (
            f"Kafka ends before the rows that Bronze has ({listed(short)}): the end of its log was lost, and new records would "
            "get offsets that Bronze has already; see playbooks/kafka-outage.md."
        )
        raise DataLossError(msg)
    lost = lost_ranges(_wanted(ends, rows, topic.start), topic.start)
    if lost and not accept_loss:
        msg = (
            f"Kafka no longer holds the offsets after Bronze's last rows: {listed(lost)}; look for another source of them "
            "(playbooks/retention-overrun.md), or give --accept-loss to go on without them."
        )
        raise DataLossError(msg)
    starting = {partition: max(first, ends.get(partition, first)) for partition, first in sorted(topic.start.items())}
    to_read = sum(max(0, topic.readable[partition] - offset) for partition, offset in starting.items())
    return _Start(topic.topic_id, json.dumps({str(partition): offset for partition, offset in starting.items()}), to_read, lost)


def _wanted(ends: Mapping[int, int], rows: list[LedgerRow], held: Mapping[int, int]) -> dict[int, int]:
    """Offset that Bronze wants next of each partition: after its last row, or where a batch that found nothing had come to.

    A partition that Bronze knows nothing of was added later and is wanted from 0; a new lake wants what Kafka has (`held`).
    """
    read = {partition: stop for partition, (_, stop) in positions(rows).items()}
    is_new = not ends and not read
    return {part: ends.get(part, read.get(part, first if is_new else 0)) for part, first in held.items()}


def _start_silver(settings: Settings, accept_loss: bool) -> _Start:
    del accept_loss
    table, ledger = require_table(settings, BRONZE), ledger_reader(settings)
    bronze, silver = ledger.rows(job="bronze"), ledger.standing("silver")
    _refuse_taken_back(settings, ledger)
    version = bronze_version_for_silver(table, silver, bronze)
    if version < log_begins(BRONZE.path(settings)) or find_gap(table, version, change_feed=False):
        # Without a start the job reads the table as it stands, which holds all rows that the old versions added.
        return _Start(table_id(table), "", sum(row.inserted for row in bronze))
    return _Start(table_id(table), json.dumps({"bronze_version": version}), _added(bronze, BRONZE, version))


def _refuse_taken_back(settings: Settings, ledger: LedgerReader) -> None:
    """Raise DataLossError where a RESTORE by hand took back what batches wrote: nobody would read their records again.

    Of Silver or of the dead letters: each record is in one of the two.

    A rollback leaves no such batch: it undoes their rows of the ledger.
    """
    for name, kind in ((SILVER, EVENTS), (DLQ, LETTERS)):
        table, rows = find_table(settings, name), ledger.standing("silver", kind)
        since = _first_end(name, rows)
        for restore in find_restores(place_of(table), table.version(), since=since).restores if table else ():
            if gone := restore.taken_back(row.versions.get(str(name)) for row in rows):
                msg = (
                    f"{name} was restored to version {restore.kept} by hand, and {gone} batches had written after it: a new "
                    f"checkpoint would go on behind their records; run `lakehouse rollback {name} --to {restore.kept} --repair`, "
                    "which reads them again (playbooks/bad-deploy.md)."
                )
                raise DataLossError(msg)


def _first_end(name: TableName, rows: list[LedgerRow]) -> int | None:
    """Version of the table with which the first of the generations ended; None where no row has one.

    No generation of Silver writes after a RESTORE, so one that took a batch back is later than the last version of its
    generation.
    """
    last: dict[str, int] = {}
    for row in rows:
        if str(name) in row.versions:
            last[row.generation] = max(row.versions[str(name)], last.get(row.generation, 0))
    return min(last.values(), default=None)


def _start_gold(settings: Settings, accept_loss: bool) -> _Start:
    del accept_loss
    table, ledger = require_table(settings, SILVER), ledger_reader(settings)
    begins = log_begins(SILVER.path(settings))
    version = silver_version_for_gold(settings, ledger.rows(job="gold"), begins)
    if version > table.version():  # the log was replaced by an older one: its versions mean something else now
        version = begins
    if gap := find_gap(table, version, change_feed=True):
        msg = (
            f"The changes of {SILVER} from version {gap.version} on cannot be read, as {gap.why}, so a new checkpoint of Gold "
            "would stop there; run `lakehouse rebuild gold --swap`, which makes Gold from the rows of Silver, then this again "
            "(playbooks/table-contract.md)."
        )
        raise DataLossError(msg)
    return _Start(table_id(table), json.dumps({"silver_version": version}), _added(ledger.rows(job="silver"), SILVER, version))


_START = {"bronze": _start_bronze, "silver": _start_silver, "gold": _start_gold}


def _added(rows: list[LedgerRow], name: TableName, version: int) -> int:
    return sum(row.inserted + row.replaced for row in rows if row.versions.get(str(name), -1) >= version)
