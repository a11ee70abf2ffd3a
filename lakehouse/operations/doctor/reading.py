"""The doctor's edge: reads Kafka, the lake and the machine, side by side, and never stops at what cannot be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from tempfile import gettempdir
from typing import TypeVar

from deltalake.exceptions import DeltaError
from pyarrow import ArrowException

from lakehouse.operations.checkpoints.lake_tables import find_table, ledger_reader, topic_id
from lakehouse.operations.checkpoints.topic import PATIENCE_SECONDS
from lakehouse.operations.doctor.commands import Commands
from lakehouse.operations.doctor.facts import (
    NEWEST_ROWS,
    THE_BROKER,
    THE_CHECKPOINTS,
    THE_GAPS,
    THE_LEASES,
    THE_TABLES,
    THE_TOPIC_ID,
    ClosedDay,
    Disk,
    Facts,
    HeldBy,
    Letters,
    Neighbours,
    RefusedDay,
    StreamCheckpoint,
)
from lakehouse.operations.doctor.reading_bills import read_closed_days, read_refused_days
from lakehouse.operations.doctor.reading_checkpoints import read_checkpoints, seen_from_here
from lakehouse.operations.doctor.reading_letters import read_letter_facts
from lakehouse.operations.doctor.reading_neighbours import read_neighbours
from lakehouse.operations.status.facts import LakeStatus
from lakehouse.operations.status.reading import read_status
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import LakehouseError, SettingsError, TransientError, UnknownFeatureError, UnreadableError, UsageError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.job_tables import JOBS
from pipelines.lake.kafka.topic import NoTopicError, TopicState, ask_topic
from pipelines.lake.ledger.ranges import merge_ranges
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.places import local_place
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import as_unreadable, is_there
from pipelines.lake.tables import BRONZE, KNOWN_GAPS

_UNREADABLE = (LakehouseError, DeltaError, ArrowException, OSError, ValueError)
"""What a table or a file may answer with that is damaged, or that a writer changes meanwhile."""
_T = TypeVar("_T")


@dataclass
class _Readers:
    """Runs readers side by side; what fails is noted and replaced."""

    pool: ThreadPoolExecutor
    unread: dict[str, Exception] = field(default_factory=dict)

    def start(self, what: str, read: Callable[[], _T], otherwise: _T) -> Future[_T]:
        def tried() -> _T:
            try:
                return read()
            except UsageError:  # there is no lake, or the settings are wrong: the user's to mend
                raise
            except _UNREADABLE as error:
                self.unread[what] = as_unreadable(error, what) or error
                return otherwise

        return self.pool.submit(tried)

    def told(self, *, is_damaged: bool) -> dict[str, str]:
        """What could not be read, and why. Where a log is damaged, which is a finding already, only what was not seen."""
        unseen = (UnreadableError, UnknownFeatureError)
        return {what: _text(error) for what, error in self.unread.items() if not is_damaged or isinstance(error, unseen)}


def _text(error: Exception) -> str:
    return str(error).splitlines()[0][:400] if str(error) else type(error).__name__


def read_facts(settings: Settings, config: str) -> Facts:
    """Read everything; raises UsageError where there is no lake. Kafka may be silent, tables may be broken."""
    with ThreadPoolExecutor(10) as pool:
        readers = _Readers(pool)
        kafka = pool.submit(_ask, settings)
        status = readers.start(THE_TABLES, lambda: read_status(settings), LakeStatus([], [], [], None))
        rows: Future[dict[str, list[LedgerRow]]] = readers.start("the batch ledger", lambda: _ledger_rows(settings), {})
        bronze_id = readers.start(THE_TOPIC_ID, lambda: _bronze_topic_id(settings), None)
        gaps: Future[dict[int, list[tuple[int, int]]]] = readers.start(THE_GAPS, lambda: _known_gaps(settings), {})
        letters = readers.start("the dead letters", lambda: read_letter_facts(settings), Letters())
        others = readers.start("what others did to the tables", lambda: read_neighbours(settings), Neighbours())
        days: Future[tuple[ClosedDay, ...]] = readers.start("the closed days", lambda: read_closed_days(settings), ())
        refused: Future[tuple[RefusedDay, ...]] = readers.start("the audits", lambda: read_refused_days(settings), ())
        checkpoints: Future[dict[str, StreamCheckpoint]] = readers.start(THE_CHECKPOINTS, lambda: read_checkpoints(settings), {})
        schemas: Future[str | None] = readers.start("the event schemas", lambda: _schema_problem(settings), None)
        topic, problem, is_missing = kafka.result()
        found = status.result()
        disks: Future[tuple[Disk, ...]] = readers.start("the disks", lambda: _disks(settings), ())
        of_jobs = checkpoints.result()
        facts = Facts(
            settings=settings,
            commands=Commands(config, settings.lake.checkpoints),
            now=datetime.now(UTC),
            status=found,
            topic=topic,
            kafka_problem=problem,
            topic_is_missing=is_missing,
            bronze_topic_id=bronze_id.result(),
            checkpoints=of_jobs,
            rows=rows.result(),
            known_gaps=gaps.result(),
            letters=letters.result(),
            leases={layer: HeldBy(holder, seen_from_here(holder)) for layer, holder in found.leases.items()},
            disks=disks.result(),
            closed_days=days.result(),
            refused_days=refused.result(),
            neighbours=others.result(),
            schema_problem=schemas.result(),
            # Last, when all readers have ended.
            unread=_unread(readers, found, of_jobs),
        )
    return facts


def _unread(readers: _Readers, status: LakeStatus, checkpoints: dict[str, StreamCheckpoint]) -> dict[str, str]:
    """Everything that could not be read, and why; a table with a feature that is not understood is a finding of its own."""
    found = readers.told(is_damaged=any(table.kind == "damaged" for table in status.tables))
    if status.broker_unread:
        found[THE_BROKER] = status.broker_unread
    if status.breaker_unread:
        found["the circuit breaker"] = status.breaker_unread
    if status.leases_unread:
        found[THE_LEASES] = " ".join(status.leases_unread)
    for job, checkpoint in checkpoints.items():
        if checkpoint.unread:
            found[f"the checkpoint of {job}"] = checkpoint.unread
        if checkpoint.lock_unread:
            found[f"who runs {job}"] = checkpoint.lock_unread
    found |= {table.name: str(table.problem) for table in status.tables if table.kind == "not readable"}
    named = {table.problem for table in status.tables if table.kind == "not understood"}
    return {what: why for what, why in found.items() if why not in named}


def _ask(settings: Settings) -> tuple[TopicState | None, str | None, bool]:
    """The topic, or why there is none, and whether that is because Kafka answered and does not have it."""
    try:
        return ask_topic(settings, PATIENCE_SECONDS), None, False
    # UsageError, UnreadableError: the embedded broker does not run, or nobody can tell.
    except (TransientError, UsageError, UnreadableError) as error:
        return None, str(error), isinstance(error, NoTopicError)


def _schema_problem(settings: Settings) -> str | None:
    try:
        read_schemas(settings.schemas_dir)
    except SettingsError as error:
        return str(error)
    return None


def _ledger_rows(settings: Settings) -> dict[str, list[LedgerRow]]:
    reader = ledger_reader(settings)
    found = {job: reader.rows(job=job, newest=NEWEST_ROWS) for job in JOBS}
    return {job: rows for job, rows in found.items() if rows}


def _bronze_topic_id(settings: Settings) -> str | None:
    table = find_table(settings, BRONZE)
    return topic_id(table) if table is not None else None


def _known_gaps(settings: Settings) -> dict[int, list[tuple[int, int]]]:
    table = find_table(settings, KNOWN_GAPS)
    found: dict[int, list[tuple[int, int]]] = {}
    for row in rows_dataset(table).to_table().to_pylist() if table is not None else ():
        if row["topic"] == settings.kafka.topic:
            found.setdefault(row["partition"], []).append((row["first_missing"], row["last_missing"] + 1))
    return {part: merge_ranges(spans) for part, spans in found.items()}


def _disks(settings: Settings) -> tuple[Disk, ...]:
    """The file systems of tables, checkpoints, state, archive and Spark's spill, each once; an object store is none."""
    found: dict[int, Disk] = {}
    lake, spill = settings.lake, settings.spark.get("spark.local.dir", "")
    if not spill and settings.environment == "local":  # there Spark runs on this machine
        spill = gettempdir()
    archive = settings.retention.archive or lake.root
    for path in (lake.root, lake.checkpoints, lake.state_dir, archive, *filter(None, map(str.strip, spill.split(",")))):
        place = local_place(path)
        if place is None or not is_there(place):
            continue
        usage = shutil.disk_usage(place)
        found.setdefault(place.stat().st_dev, Disk(path, usage.total, usage.free))
    return tuple(found.values())
