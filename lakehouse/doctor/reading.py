"""The doctor's edge: reads Kafka, the lake and the machine, side by side, and never stops at what cannot be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

from deltalake.exceptions import DeltaError
from pyarrow import ArrowException

from lakehouse.checkpoints.lake_tables import JOBS, find_table, topic_id
from lakehouse.checkpoints.ledger_rows import LedgerReader, LedgerRow
from lakehouse.checkpoints.topic import ask_kafka
from lakehouse.doctor.commands import Commands
from lakehouse.doctor.facts import NEWEST_ROWS, THE_TABLES, ClosedDay, Disk, Facts, HeldBy, Letters, Neighbours, StreamCheckpoint
from lakehouse.doctor.reading_bills import read_closed_days
from lakehouse.doctor.reading_checkpoints import read_checkpoints, seen_from_here
from lakehouse.doctor.reading_letters import read_letter_facts
from lakehouse.doctor.reading_neighbours import read_neighbours
from lakehouse.status import LakeStatus, read_status
from pipelines.common.errors import LakehouseError, TransientError, UsageError
from pipelines.common.kafka import TopicState, bootstrap_servers
from pipelines.common.leases import leases_held
from pipelines.common.ledger import merge_ranges
from pipelines.common.plain_read import rows_dataset
from pipelines.common.settings import Settings
from pipelines.common.tables import BRONZE, KNOWN_GAPS

_UNREADABLE = (LakehouseError, DeltaError, ArrowException, OSError, ValueError)
"""What a table or a file may answer with that is damaged, or that a writer changes meanwhile."""
_T = TypeVar("_T")


@dataclass
class _Readers:
    """Runs readers side by side; what fails is noted and replaced."""

    pool: ThreadPoolExecutor
    unread: dict[str, str] = field(default_factory=dict)

    def start(self, what: str, read: Callable[[], _T], otherwise: _T) -> Future[_T]:
        def tried() -> _T:
            try:
                return read()
            except UsageError:  # there is no lake, or the settings are wrong: the user's to mend
                raise
            except _UNREADABLE as error:
                self.unread[what] = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
                return otherwise

        return self.pool.submit(tried)


def read_facts(settings: Settings, config: str) -> Facts:
    """Read everything; raises UsageError where there is no lake. Kafka may be silent, tables may be broken."""
    with ThreadPoolExecutor(9) as pool:
        readers = _Readers(pool)
        kafka = pool.submit(_ask, settings)
        status = readers.start(THE_TABLES, lambda: read_status(settings), LakeStatus([], [], [], None))
        rows: Future[dict[str, list[LedgerRow]]] = readers.start("the batch ledger", lambda: _ledger_rows(settings), {})
        bronze_id = readers.start("Bronze's properties", lambda: _bronze_topic_id(settings), None)
        gaps: Future[dict[int, list[tuple[int, int]]]] = readers.start("ops.known_gaps", lambda: _known_gaps(settings), {})
        letters = readers.start("the dead letters", lambda: read_letter_facts(settings), Letters())
        others = readers.start("what others did to the tables", lambda: read_neighbours(settings), Neighbours())
        days: Future[tuple[ClosedDay, ...]] = readers.start("the closed days", lambda: read_closed_days(settings), ())
        checkpoints: Future[dict[str, StreamCheckpoint]] = readers.start(
            "the checkpoints", lambda: read_checkpoints(settings), {}
        )
        topic, problem, is_missing = kafka.result()
        found = status.result()
        is_broken = any(table.problem for table in found.tables)
        breaker = {"the circuit breaker": found.breaker_unread} if found.breaker_unread else {}
        facts = Facts(
            settings=settings,
            commands=Commands(config, settings.lake.checkpoints),
            now=datetime.now(UTC),
            status=found,
            topic=topic,
            kafka_problem=problem,
            topic_is_missing=is_missing,
            bronze_topic_id=bronze_id.result(),
            checkpoints=checkpoints.result(),
            rows=rows.result(),
            known_gaps=gaps.result(),
            letters=letters.result(),
            leases={layer: HeldBy(holder, seen_from_here(holder)) for layer, holder in leases_held(settings).items()},
            disks=_disks(settings),
            closed_days=days.result(),
            neighbours=others.result(),
            # Last, when all readers have ended. A table whose log is broken is a finding already.
            unread=({} if is_broken else readers.unread) | breaker,
        )
    return facts


def _ask(settings: Settings) -> tuple[TopicState | None, str | None, bool]:
    """The topic, or why there is none, and whether that is because Kafka answered and does not have it."""
    try:
        bootstrap_servers(settings)
    except UsageError as error:  # the embedded broker is not there
        return None, str(error), False
    try:
        return ask_kafka(settings), None, False
    except TransientError as error:
        return None, str(error), False
    except UsageError as error:
        return None, str(error), True


def _ledger_rows(settings: Settings) -> dict[str, list[LedgerRow]]:
    reader = LedgerReader(settings)
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
        place = Path(path)
        if "://" in path or not place.exists():
            continue
        usage = shutil.disk_usage(place)
        found.setdefault(place.stat().st_dev, Disk(path, usage.total, usage.free))
    return tuple(found.values())
