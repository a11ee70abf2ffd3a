"""All checkpoints of the lake at a glance: how far each is, how old, how far behind its source, what the ledger says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from lakehouse.operations.checkpoints.lake_tables import find_table, ledger_reader
from lakehouse.operations.checkpoints.reading import METADATA, CheckpointState, read_checkpoint
from lakehouse.operations.checkpoints.topic import ask_aside
from lakehouse.operations.checkpoints.verify_source import next_offsets, next_version
from pipelines.lake.checkpoint.identity import MARKER
from pipelines.lake.errors import LakehouseError, UnreadableError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.ledger.reader import LedgerReader
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.local_files import names_in
from pipelines.lake.storage.protocol import Storage

_READ_AT_ONCE = 4


@dataclass(frozen=True)
class Overview:
    """One checkpoint. `lag` counts offsets in Kafka (unit `records`) or commits of a Delta table (`versions`); None: unknown.

    `planned` and `committed` are the last batches; `ledger_end` is the end that the ledger's last row names. `is_unread`: the
    checkpoint, or what it is compared with, could not be read; `problem` says what.
    """

    job: str
    folder: str
    path: str
    generation: str | None
    query_id: str | None
    planned: int | None
    committed: int | None
    committed_at: datetime | None
    age_seconds: float | None
    lag: int | None
    lag_unit: str
    ledger_batch: int | None
    ledger_end: dict[str, list[int]] | None
    problem: str | None
    is_unread: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Place:
    """A checkpoint's folder; `problem` where it, or the job's folder (`folder` is empty), is not readable."""

    job: str
    folder: str
    problem: UnreadableError | None = None


def checkpoint_names(files: Iterable[str]) -> list[str]:
    """Names of the folders that hold a checkpoint, of the files below a job's folder."""
    found = set()
    for name in files:
        folder, _, file = name.partition("/")
        if file in (MARKER, METADATA) or file.startswith(("offsets/", "commits/")):
            found.add(folder)
    return sorted(found)


def checkpoint_folders(root: Storage) -> list[_Place]:
    """Where checkpoints lie below their root, as `<job>/<folder>`; what is not readable counts, since one may lie there."""
    try:
        names = [tuple(name.split("/", 1)) for name in root.files() if "/" in name]
        jobs = {job: [rest for found, rest in names if found == job] for job, _ in names}
        found = [_Place(job, folder) for job, files in jobs.items() for folder in checkpoint_names(files)]
    except UnreadableError:
        if not root.abilities.rights:
            raise
        found = [place for job in names_in(root.path) for place in _places_of(root.path, job)]
    flow = list(JOBS)
    order = {place: (flow.index(place.job) if place.job in flow else len(flow), place.job, place.folder) for place in found}
    return sorted(found, key=lambda place: order[place])


def _places_of(root: str, job: str) -> Iterator[_Place]:
    try:
        folders = names_in(f"{root}/{job}")
    except UnreadableError as error:
        yield _Place(job, "", error)
        return
    for folder in folders:
        try:
            if checkpoint_names(f"{folder}/{name}" for name in open_storage(f"{root}/{job}/{folder}").files()):
                yield _Place(job, folder)
        except UnreadableError as error:
            yield _Place(job, folder, error)


def list_checkpoints(
    settings: Settings, asked: Future[TopicState | LakehouseError] | None = None
) -> tuple[list[Overview], str | None]:
    """Read all checkpoints below `lake.checkpoints`, and why Kafka gave no offsets (None: it did).

    `asked`: what `ask_aside` gave, if it was called. What cannot be read is said in `problem`; tables and Kafka may be missing.
    """
    root, now = settings.lake.checkpoints.rstrip("/"), datetime.now(UTC)
    asked = asked or ask_aside(settings)
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        reader = pool.submit(_ledger, settings)
        ends = pool.submit(_source_versions, settings)
        folders = checkpoint_folders(open_storage(root))
        states = list(pool.map(lambda place: _read(root, place), folders))
        kafka, ledger, versions = asked.result(), reader.result(), ends.result()
        rows = list(pool.map(lambda state: _last_row(ledger, state), states))
    found = []
    for place, state, last in zip(folders, states, rows, strict=True):
        job, folder = place.job, place.folder
        if isinstance(state, LakehouseError):
            found.append(_unread(place, f"{root}/{job}/{folder}".rstrip("/"), state))
            continue
        unseen = [one for one in (last, versions.get(job)) if isinstance(one, LakehouseError)]
        row = None if isinstance(last, LakehouseError) else last
        lag, unit = _lag(job, state, kafka, versions)
        when = None if state.last_committed is None else state.committed_at(state.last_committed)
        problems = [
            *(f"{file.name} {file.problem}" for file in state.broken),
            *([] if state.marker else [f"{MARKER} is missing"]),
        ]
        found.append(
            Overview(
                job=job,
                folder=folder,
                path=state.path,
                generation=state.marker.generation if state.marker else None,
                query_id=state.query_id,
                planned=state.last_planned,
                committed=state.last_committed,
                committed_at=when,
                age_seconds=None if when is None else (now - when).total_seconds(),
                lag=lag,
                lag_unit=unit,
                ledger_batch=row.batch_id if row else None,
                ledger_end=dict(row.offsets) if row else None,
                problem="; ".join([*problems, *dict.fromkeys(str(one) for one in unseen)]) or None,
                is_unread=bool(unseen),
            )
        )
    return found, None if isinstance(kafka, TopicState) else str(kafka)


def _read(root: str, place: _Place) -> CheckpointState | LakehouseError:
    if place.problem is not None:
        return place.problem
    try:
        return read_checkpoint(open_storage(f"{root}/{place.job}/{place.folder}"), last=1)
    except UnreadableError as error:
        return error


def _unread(place: _Place, path: str, error: LakehouseError) -> Overview:
    unknown = dict.fromkeys(
        ("generation", "query_id", "planned", "committed", "committed_at", "age_seconds", "lag", "ledger_batch", "ledger_end")
    )
    unit = "records" if place.job == "bronze" else "versions"
    return Overview(
        job=place.job, folder=place.folder or "?", path=path, lag_unit=unit, problem=str(error), is_unread=True, **unknown
    )


def _ledger(settings: Settings) -> LedgerReader | LakehouseError:
    try:
        return ledger_reader(settings)
    except LakehouseError as error:
        return error


def _last_row(
    ledger: LedgerReader | LakehouseError, state: CheckpointState | LakehouseError
) -> LedgerRow | LakehouseError | None:
    if isinstance(ledger, LakehouseError):
        return ledger
    if isinstance(state, LakehouseError) or not state.marker:
        return None
    try:
        return ledger.last(state.marker.job, state.marker.generation)
    except LakehouseError as error:
        return error


def _source_versions(settings: Settings) -> dict[str, int | LakehouseError]:
    """For each job that reads a table: the table's version, or why it is not known."""
    found: dict[str, int | LakehouseError] = {}
    for job, tables in JOBS.items():
        try:
            table = find_table(settings, tables.source) if tables.source else None
        except LakehouseError as error:
            found[job] = error
            continue
        if table is not None:
            found[job] = table.version()
    return found


def _lag(
    job: str, state: CheckpointState, kafka: TopicState | LakehouseError, versions: dict[str, int | LakehouseError]
) -> tuple[int | None, str]:
    if job == "bronze":
        return kafka_lag(next_offsets(state), kafka), "records"
    version, newest = next_version(state), versions.get(job)
    behind = None if version is None or not isinstance(newest, int) else max(0, newest - version + 1)
    return behind, "versions"


def kafka_lag(offsets: dict[int, int] | None, kafka: TopicState | LakehouseError) -> int | None:
    """Offsets between a checkpoint and the end of the topic, over all partitions; one without an offset counts whole."""
    if offsets is None or not isinstance(kafka, TopicState):
        return None
    behind: Iterable[int] = (
        max(0, end - offsets.get(partition, kafka.start[partition])) for partition, end in kafka.readable.items()
    )
    return sum(behind)
