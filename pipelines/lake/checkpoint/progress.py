"""Reads how far a checkpoint is: which batches Spark planned and committed, and where they begin and end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pipelines.lake.checkpoint.checked_files import read_checked
from pipelines.lake.checkpoint.spark_files import DeltaPosition, KafkaPosition, Position, read_initial, read_planned
from pipelines.lake.errors import CheckpointError
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import Storage

_T = TypeVar("_T")


def last_planned(storage: Storage) -> int | None:
    """Last batch that Spark planned; None where there is none."""
    return _last(storage, "offsets")


def last_committed(storage: Storage) -> int | None:
    """Last batch that Spark committed; None where there is none."""
    return _last(storage, "commits")


def planned_offsets(path: str, batch_id: int) -> tuple[dict[int, int], dict[int, int]]:
    """First and end (exclusive) Kafka offset for each partition of `batch_id` of the checkpoint at `path`, as Spark planned them.

    Source: Spark's offset log; batch 0 starts where `sources/0/0` says, a partition that was added starts at its
    beginning, which the log does not tell and which is left out of the first map. Raises CheckpointError where it is damaged.
    """
    storage = open_storage(path)
    end = _read(storage, f"offsets/{batch_id}", lambda content: read_planned(content).end)
    start = (
        _read(storage, "sources/0/0", read_initial)
        if batch_id == 0
        else _read(storage, f"offsets/{batch_id - 1}", lambda content: read_planned(content).end)
    )
    return _offsets(storage, start), _offsets(storage, end)


def source_version(path: str, batch_id: int) -> int:
    """Version of the source table up to which `batch_id` reads: those before it are read whole, this one perhaps in part.

    Source: Spark's offset log of a stream that reads a Delta table. Raises CheckpointError where it is damaged.
    """
    storage = open_storage(path)
    position = _read(storage, f"offsets/{batch_id}", lambda content: read_planned(content).end)
    if isinstance(position, KafkaPosition):
        raise _damaged(storage, f"offsets/{batch_id}", "holds Kafka's offsets, expected a version of a Delta table")
    return position.version


def next_position(storage: Storage) -> Position | None:
    """Where the batch after the last committed one begins; None where none was committed, or its file is missing or damaged."""
    batch = last_committed(storage)
    if batch is None:
        return None
    try:
        return read_planned(read_checked(storage, f"offsets/{batch}")).end
    except (FileNotFoundError, ValueError):
        return None


def _last(storage: Storage, folder: str) -> int | None:
    return max((int(name) for name in storage.names(folder) if name.isdecimal()), default=None)


def _read(storage: Storage, name: str, decode: Callable[[bytes], _T]) -> _T:
    try:
        return decode(read_checked(storage, name))
    except ValueError as error:
        raise _damaged(storage, name, str(error)) from None


def _offsets(storage: Storage, position: Position) -> dict[int, int]:
    if isinstance(position, DeltaPosition):
        raise _damaged(storage, "offsets", "hold a version of a Delta table, expected Kafka's offsets")
    return position.offsets


def _damaged(storage: Storage, name: str, problem: str) -> CheckpointError:
    msg = (
        f"The file {name} of the checkpoint {storage.path} {problem}; see playbooks/checkpoint-lost.md, or give a new path for "
        "a new generation."
    )
    return CheckpointError(msg)
