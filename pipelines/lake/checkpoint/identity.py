"""Says whose a checkpoint is: a small file in it names its job, source, tables and generation."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipelines.lake.checkpoint.checked_files import create_checked, read_checked
from pipelines.lake.checkpoint.progress import last_planned
from pipelines.lake.errors import CheckpointError
from pipelines.lake.lease.checkpoints import CheckpointLock, lock_checkpoint
from pipelines.lake.storage.backends import open_storage

MARKER = "lakehouse.json"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """Whose a checkpoint is; `generation` names it in transaction ids and in the ledger.

    `source` and `target` are ids of the topic and of tables. `versions`: versions of the tables that it writes when it was made,
    by the tables' names: a RESTORE before them is none of its own (see `pipelines/runtime/guards/checkpoint.py`).
    """

    job: str
    generation: str
    source: str
    target: str
    starting: str
    versions: Mapping[str, int] = field(default_factory=dict)

    def app_id(self, part: str = "") -> str:
        """Delta's transaction app id of this checkpoint (and of one `part` of its batches)."""
        return f"lakehouse-{self.job}{part and f'-{part}'}-{self.generation}"

    def encode(self) -> bytes:
        """Give the content of the file `lakehouse.json`."""
        return json.dumps({name: getattr(self, name) for name in _FIELDS}).encode()

    @staticmethod
    def decode(content: bytes) -> Marker:
        """Read the file `lakehouse.json`; raises ValueError with half a sentence.

        One that says more than this version knows is not read: what it means would be lost by whoever writes it again.
        """
        tree = decode_object(content)
        if missing := sorted(_FIELDS - {"versions"} - set(tree)):
            msg = f"has no {', '.join(missing)}, so it does not say whose the checkpoint is"
            raise ValueError(msg)
        if unknown := sorted(set(tree) - _FIELDS):
            msg = f"was made by a newer version of this project ({MARKER} has {', '.join(unknown)}, which this one does not know)"
            raise ValueError(msg)
        try:
            versions = {str(name): int(version) for name, version in (tree.pop("versions", None) or {}).items()}
        except (TypeError, ValueError, AttributeError):
            msg = "is damaged: its versions are no numbers"
            raise ValueError(msg) from None
        return Marker(**{name: str(value) for name, value in tree.items()}, versions=versions)


_FIELDS = {one.name for one in fields(Marker)}


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Marker):
    """A checkpoint that a job has opened. `is_new`: no batch was planned yet.

    Who opened it releases `lock`, or gives it to the stream, which releases it when it ends.
    """

    path: str
    is_new: bool
    lock: CheckpointLock = field(default_factory=CheckpointLock, compare=False, repr=False)


def new_generation_id() -> str:
    """Make a generation: 12 hexadecimal digits."""
    return uuid.uuid4().hex[:12]


def open_checkpoint(
    path: str,
    *,
    job: str,
    source: str,
    target: str,
    starting: str = "",
    versions: Mapping[str, int] | None = None,
    lock: CheckpointLock | None = None,
) -> Checkpoint:
    """Open the checkpoint at `path`, or mark a new one; `source` and `target` are ids of topic and tables.

    `versions`: versions of the tables that it writes; a new checkpoint keeps them. `lock`: the checkpoint's, where the caller has
    it already.

    Raises CheckpointError where it is another job's, another table's, or was made with other starting offsets, UsageError
    where another run is on it; then nothing is written.
    """
    storage = open_storage(path)
    # A hidden file is what a driver left that died while it wrote the marker.
    names = {name for name in storage.names() if not name.startswith(".")}
    if MARKER not in names:
        if names:
            msg = (
                f"The folder {path} holds files of something else, expected a checkpoint of {job} or nothing; choose a new path."
            )
            raise CheckpointError(msg)
        new = Marker(
            job=job,
            generation=new_generation_id(),
            source=source,
            target=target,
            starting=starting,
            versions=dict(versions or {}),
        )
        _create(path, new)
        lock = lock or lock_checkpoint(path, job=job, run=new.generation)
        return Checkpoint(path=path, is_new=True, lock=lock, **_values(new))
    marker = _read_marker(path)
    # The folder alone says nothing: a driver that dies right after its start leaves it empty.
    is_new = last_planned(storage) is None
    _refuse_foreign(path, marker, {"job": job, "source": source, "target": target}, starting)
    lock = lock or lock_checkpoint(path, job=job, run=marker.generation)
    return Checkpoint(path=path, is_new=is_new, lock=lock, **_values(marker))


def read_object(checkpoint: str, name: str) -> dict[str, Any]:
    """Read the JSON object in a file of the project's own in a checkpoint.

    Raises CheckpointError where it is empty or cut: a disk that was full, or a copy that was not finished.
    """
    try:
        return decode_object(read_checked(open_storage(checkpoint), name))
    except ValueError as error:
        msg = (
            f"The file {name} of the checkpoint {checkpoint} {error}, expected a JSON object; nothing can go on from it: "
            "see playbooks/checkpoint-lost.md, or give a new path."
        )
        raise CheckpointError(msg) from None


def decode_object(content: bytes) -> dict[str, Any]:
    """Decode a JSON object; raises ValueError with half a sentence where the content is empty, cut or something else."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        msg = "is cut or damaged" if content.strip() else "is empty"
        raise ValueError(msg)
    return found


def _create(path: str, marker: Marker) -> None:
    try:
        create_checked(open_storage(path), MARKER, marker.encode())
    except FileExistsError:
        msg = f"Another driver made a checkpoint at {path} at this moment; stop one of the two, or give a new path for this one."
        raise CheckpointError(msg) from None


def _read_marker(path: str) -> Marker:
    try:
        return Marker.decode(read_checked(open_storage(path), MARKER))
    except ValueError as error:
        msg = (
            f"The file {MARKER} of the checkpoint {path} {error}; go on with the version of this project that wrote it, "
            "give a new path for a new generation, or see playbooks/checkpoint-lost.md."
        )
        raise CheckpointError(msg) from None


def _values(marker: Marker) -> dict[str, Any]:
    return {name: getattr(marker, name) for name in _FIELDS}


def _refuse_foreign(path: str, marker: Marker, expected: dict[str, str], starting: str) -> None:
    found = _values(marker)
    for key, value in expected.items():
        if found[key] != value:
            msg = (
                f"The checkpoint {path} belongs to {key} {found[key]}, expected {value}; "
                "give the checkpoint of this job, or a new path for a new generation."
            )
            raise CheckpointError(msg)
    if starting and starting != marker.starting:
        msg = (
            f"The checkpoint {path} already knows where to go on, so other offsets, dates or --on-conflict have no "
            "effect on it; leave the flags out, or give a new path."
        )
        raise CheckpointError(msg)
