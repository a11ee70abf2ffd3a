"""Which checkpoint each stream uses, who runs on it, and whether it is sound."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lakehouse.operations.checkpoints.listing import checkpoint_names
from lakehouse.operations.checkpoints.verify import verify_checkpoint
from lakehouse.operations.doctor.facts import HeldBy, StreamCheckpoint
from pipelines.lake.checkpoint.generations import next_generation_path
from pipelines.lake.checkpoint.identity import MARKER
from pipelines.lake.errors import LakehouseError, TransientError, UnknownFeatureError, UnreadableError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.lease.checkpoints import checkpoint_holder
from pipelines.lake.lease.protocol import Holder
from pipelines.lake.places import is_local
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import Entry, Storage

_REPLAY = "replay/"
"""Storage in the checkpoint of a bounded replay: it ends by itself, and is nobody's stream."""


_NOT_ASKED: Future[TopicState | LakehouseError] = Future()
_NOT_ASKED.set_result(TransientError("the doctor compares it with Kafka by itself"))


def read_checkpoints(settings: Settings) -> dict[str, StreamCheckpoint]:
    """Verify the checkpoint of each job's stream, Kafka left aside; a job without one is left out."""
    with ThreadPoolExecutor(len(JOBS)) as pool:
        found = pool.map(lambda job: _read(settings, job), JOBS)
        return {one.job: one for one in found if one is not None}


def _read(settings: Settings, job: str) -> StreamCheckpoint | None:
    path = f"{settings.lake.checkpoints.rstrip('/')}/{job}"
    try:
        return _judge_newest(settings, job, path)
    except UnreadableError as error:
        return StreamCheckpoint(job, path, "", None, unread=str(error), lock_unread=str(error))


def _judge_newest(settings: Settings, job: str, root: str) -> StreamCheckpoint | None:
    folder = open_storage(root)
    files = folder.files()
    streams = [name for name in checkpoint_names(files) if not _is_replay(folder, files, f"{name}/")]
    if not streams:
        return None
    holders = {name: _holder(f"{root}/{name}") for name in streams}
    # A lock that cannot be looked at may be held.
    last = max(streams, key=lambda name: (holders[name] is not None, _changed(files, f"{name}/")))
    return _judge(settings, job, f"{root}/{last}", holders[last])


def _judge(settings: Settings, job: str, path: str, holder: Holder | UnreadableError | None) -> StreamCheckpoint:
    lock = HeldBy(holder, seen_from_here(holder)) if isinstance(holder, Holder) else None
    unread, problem, verdict = None, None, None
    try:
        verdict = verify_checkpoint(settings, open_storage(path), _NOT_ASKED)
    except (UnreadableError, UnknownFeatureError) as error:
        unread = str(error)
    except LakehouseError as error:
        problem = str(error)
    return StreamCheckpoint(
        job=job,
        path=path,
        next_path=next_generation_path(settings, job),
        state=verdict.state if verdict is not None else None,
        findings=tuple(verdict.findings) if verdict is not None else (),
        lock=lock,
        is_guarded=is_local(path),
        problem=problem,
        unread=unread,
        lock_unread=str(holder) if isinstance(holder, UnreadableError) else None,
    )


def seen_from_here(holder: Holder) -> bool | None:
    """Whether the holder's process is stopped; None where it runs on another machine, or has gone meanwhile."""
    if holder.host != socket.gethostname():
        return None
    try:
        stat = Path(f"/proc/{holder.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[:1] in (["T"], ["t"])


def _holder(path: str) -> Holder | UnreadableError | None:
    try:
        return checkpoint_holder(path)
    except UnreadableError as error:
        return error


def _changed(files: Mapping[str, Entry], prefix: str) -> float:
    return max(entry.modified.timestamp() for name, entry in files.items() if name.startswith(prefix))


def _is_replay(folder: Storage, files: Mapping[str, Entry], prefix: str) -> bool:
    if any(name.startswith(prefix + _REPLAY) for name in files):
        return True
    if prefix + MARKER not in files or any(name.startswith((f"{prefix}offsets/", f"{prefix}commits/")) for name in files):
        return False
    try:
        starting = json.loads(json.loads(folder.read(prefix + MARKER))["starting"] or "{}")
    except (OSError, ValueError, KeyError, TypeError):  # `verify` names what is wrong with it
        return False
    # A replay of Gold is done at once, without a plan.
    return isinstance(starting, dict) and "versions" in starting
