"""A checkpoint as its files have it: whose it is, which batches were planned and committed, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from pipelines.lake.checkpoint.checked_files import checksum_of, fits_checksum
from pipelines.lake.checkpoint.identity import MARKER, Marker
from pipelines.lake.checkpoint.spark_files import Planned, Position, check_commit, read_initial, read_planned, read_query_id
from pipelines.lake.errors import CheckpointError
from pipelines.lake.storage.protocol import Entry, Storage, read_all

METADATA = "metadata"
INITIAL = "sources/0/0"
_T = TypeVar("_T")


@dataclass(frozen=True)
class BrokenFile:
    """A file that cannot be read, and what is wrong with it."""

    name: str
    problem: str


@dataclass(frozen=True)
class CheckpointState:
    """What the folder holds. Of batches, `planned` has those whose file can be read; the ids are complete."""

    path: str
    entries: dict[str, Entry] = field(repr=False)
    marker: Marker | None
    query_id: str | None
    initial: Position | None
    planned: dict[int, Planned]
    planned_ids: list[int]
    commit_ids: list[int]
    broken: list[BrokenFile]

    @property
    def last_planned(self) -> int | None:
        """Last batch that Spark planned, None where there is none."""
        return self.planned_ids[-1] if self.planned_ids else None

    @property
    def last_committed(self) -> int | None:
        """Last batch that Spark finished, None where there is none."""
        return self.commit_ids[-1] if self.commit_ids else None

    @property
    def has_state(self) -> bool:
        """Tell whether operators keep state here."""
        return any(name.startswith("state/") for name in self.entries)

    def committed_at(self, batch: int) -> datetime | None:
        """When Spark finished the batch; None where it did not."""
        entry = self.entries.get(f"commits/{batch}")
        return entry.modified if entry else None

    def end(self, batch: int | None) -> Position | None:
        """Where a batch ended; the initial position where `batch` is None."""
        if batch is None:
            return self.initial
        return self.planned[batch].end if batch in self.planned else None

    def start(self, batch: int) -> Position | None:
        """Where a batch begins; None where no file tells."""
        return self.end(batch - 1) if batch else self.initial


def read_checkpoint(folder: Storage, *, last: int | None = None, checksums: bool = False) -> CheckpointState:
    """Read a checkpoint: all batches, or the `last` few. Content that is broken is part of the answer.

    With `checksums`, a file that differs from what Hadoop noted beside it is broken too.
    Raises CheckpointError where the folder holds no checkpoint.
    """
    entries = folder.files()
    planned_ids, commit_ids = _batches(entries, "offsets/"), _batches(entries, "commits/")
    if not {MARKER, METADATA} & entries.keys() and not planned_ids and not commit_ids:
        what = "holds files of something else" if entries else "is empty or absent"
        msg = (
            f"The folder {folder.path} {what}, expected a checkpoint; give one of those that `lakehouse checkpoint list` shows, "
            "such as .lakehouse/checkpoints/bronze/g1."
        )
        raise CheckpointError(msg)
    wanted = [MARKER, METADATA, INITIAL]
    wanted += [f"offsets/{batch}" for batch in _newest(planned_ids, last, extra=1)]
    wanted += [f"commits/{batch}" for batch in _newest(commit_ids, last)]
    sums = [checksum_of(name) for name in wanted] if checksums else []
    found = read_all(folder, [name for name in wanted + sums if name in entries])
    broken = [
        BrokenFile(name, "differs from Hadoop's checksum beside it, and Spark will refuse it")
        for name in wanted
        if name in found and checksum_of(name) in found and not fits_checksum(found[name], found[checksum_of(name)])
    ]
    reader = _Reader(found, broken)
    planned = {batch: reader.read(f"offsets/{batch}", read_planned) for batch in planned_ids}
    for batch in commit_ids:
        reader.read(f"commits/{batch}", check_commit)
    return CheckpointState(
        path=folder.path,
        entries=entries,
        marker=reader.read(MARKER, Marker.decode),
        query_id=reader.read(METADATA, read_query_id),
        initial=reader.read(INITIAL, read_initial),
        planned={batch: plan for batch, plan in planned.items() if plan is not None},
        planned_ids=planned_ids,
        commit_ids=commit_ids,
        broken=broken,
    )


@dataclass(frozen=True)
class _Reader:
    found: dict[str, bytes]
    broken: list[BrokenFile]

    def read(self, name: str, decode: Callable[[bytes], _T]) -> _T | None:
        if name not in self.found:
            return None
        try:
            return decode(self.found[name])
        except ValueError as error:
            self.broken[:] = [one for one in self.broken if one.name != name]
            self.broken.append(BrokenFile(name, str(error)))
            return None


def _batches(entries: dict[str, Entry], folder: str) -> list[int]:
    names = (name.removeprefix(folder) for name in entries if name.startswith(folder))
    return sorted(int(name) for name in names if name.isdecimal())


def _newest(ids: list[int], last: int | None, extra: int = 0) -> list[int]:
    return ids if last is None else ids[-(last + extra) :]
