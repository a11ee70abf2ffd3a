"""All checkpoints of the lake at a glance: how far each is, how old, how far behind its source, what the ledger says."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from lakehouse.checkpoints.folder import Folder, open_folder
from lakehouse.checkpoints.lake_tables import JOBS, find_table
from lakehouse.checkpoints.ledger_rows import LedgerReader, LedgerRow
from lakehouse.checkpoints.reading import MARKER, METADATA, CheckpointState, read_checkpoint
from lakehouse.checkpoints.topic import ask_aside
from lakehouse.checkpoints.verify_source import next_offsets, next_version
from pipelines.common.errors import LakehouseError
from pipelines.common.kafka import TopicState
from pipelines.common.settings import Settings

_READ_AT_ONCE = 4


@dataclass(frozen=True)
class Overview:
    """One checkpoint. `lag` counts offsets in Kafka (unit `records`) or commits of a Delta table (`versions`); None: unknown.

    `planned` and `committed` are the last batches; `ledger_end` is the end that the ledger's last row names.
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def checkpoint_folders(root: Folder) -> list[tuple[str, str]]:
    """Job and folder name of each `<job>/<folder>` below the root of checkpoints that holds one."""
    found = set()
    for name in root.files():
        job, _, rest = name.partition("/")
        folder, _, file = rest.partition("/")
        if file in (MARKER, METADATA) or file.startswith(("offsets/", "commits/")):
            found.add((job, folder))
    flow = list(JOBS)
    return sorted(found, key=lambda pair: (flow.index(pair[0]) if pair[0] in flow else len(flow), pair))


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
        folders = checkpoint_folders(open_folder(root))
        states = list(pool.map(lambda pair: _read(f"{root}/{pair[0]}/{pair[1]}"), folders))
        kafka, (ledger, problem), versions = asked.result(), reader.result(), ends.result()
        rows = list(pool.map(lambda state: _last_row(ledger, state), states))
    found = []
    for (job, folder), state, row in zip(folders, states, rows, strict=True):
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
                ledger_end=row.offsets if row else None,
                problem="; ".join(problems) or problem,
            )
        )
    return found, None if isinstance(kafka, TopicState) else str(kafka)


def _read(path: str) -> CheckpointState:
    return read_checkpoint(open_folder(path), last=1)


def _ledger(settings: Settings) -> tuple[LedgerReader | None, str | None]:
    try:
        return LedgerReader(settings), None
    except LakehouseError as error:
        return None, str(error)


def _last_row(ledger: LedgerReader | None, state: CheckpointState) -> LedgerRow | None:
    return ledger.last(state.marker.job, state.marker.generation) if ledger and state.marker else None


def _source_versions(settings: Settings) -> dict[str, int]:
    """For each job that reads a table: the table's version."""
    found = {}
    for job, tables in JOBS.items():
        try:
            table = find_table(settings, tables.source) if tables.source else None
        except LakehouseError:  # `verify` names it; here the lag is unknown
            continue
        if table is not None:
            found[job] = table.version()
    return found


def _lag(
    job: str, state: CheckpointState, kafka: TopicState | LakehouseError, versions: dict[str, int]
) -> tuple[int | None, str]:
    if job == "bronze":
        return kafka_lag(next_offsets(state), kafka), "records"
    version = next_version(state)
    behind = None if version is None or job not in versions else max(0, versions[job] - version + 1)
    return behind, "versions"


def kafka_lag(offsets: dict[int, int] | None, kafka: TopicState | LakehouseError) -> int | None:
    """Offsets between a checkpoint and the end of the topic, over all partitions; one without an offset counts whole."""
    if offsets is None or not isinstance(kafka, TopicState):
        return None
    behind: Iterable[int] = (
        max(0, end - offsets.get(partition, kafka.start[partition])) for partition, end in kafka.readable.items()
    )
    return sum(behind)
