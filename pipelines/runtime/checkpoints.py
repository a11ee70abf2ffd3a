"""Whose a checkpoint is: a small file in it says which job, source and table it belongs to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pyspark.sql import SparkSession

from pipelines.lake.errors import CheckpointError
from pipelines.lake.lease.leases import take_checkpoint
from pipelines.runtime import files

MARKER = "lakehouse.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's identity; `generation` names it in transaction ids and in the ledger. `is_new`: no batch was planned yet.

    `versions`: versions of the tables that it writes when it was made, by the tables' names (see restores.py).
    """

    path: str
    generation: str
    job: str
    source: str
    target: str
    starting: str
    is_new: bool
    versions: Mapping[str, int] = field(default_factory=dict)

    def app_id(self, part: str = "") -> str:
        """Delta's transaction app id of this checkpoint (and of one `part` of its batches)."""
        return f"lakehouse-{self.job}{part and f'-{part}'}-{self.generation}"


def open_checkpoint(
    spark: SparkSession,
    path: str,
    *,
    job: str,
    source: str,
    target: str,
    starting: str = "",
    versions: Mapping[str, int] | None = None,
) -> Checkpoint:
    """Open the checkpoint at `path`, or mark a new one; `source` and `target` are ids of topic and tables.

    `versions`: versions of the tables that it writes; a new checkpoint keeps them.

    Raises CheckpointError where it is another job's, another table's, or was made with other starting offsets, UsageError
    where another driver runs on it; then nothing is written.
    """
    # A hidden file is what a driver left that died while it wrote the marker.
    names = {name for name in files.list_names(spark, path) if not name.startswith(".")}
    if MARKER not in names:
        if names:
            msg = (
                f"The folder {path} holds files of something else, expected a checkpoint of {job} or nothing; choose a new path."
            )
            raise CheckpointError(msg)
        marker: dict[str, Any] = {"job": job, "generation": uuid.uuid4().hex[:12], "source": source, "target": target}
        marker |= {"starting": starting, "versions": dict(versions or {})}
        files.write_text(spark, f"{path}/{MARKER}", json.dumps(marker))
        take_checkpoint(path, job=job, run=marker["generation"])
        return Checkpoint(path=path, is_new=True, **marker)
    marker = _read_marker(spark, path)
    # The folder alone says nothing: a driver that dies right after its start leaves it empty.
    checkpoint = Checkpoint(path=path, is_new=last_planned(spark, path) is None, **marker)
    _refuse_foreign(checkpoint, {"job": job, "source": source, "target": target}, starting)
    take_checkpoint(path, job=job, run=checkpoint.generation)
    return checkpoint


def last_planned(spark: SparkSession, path: str) -> int | None:
    """Last batch that Spark planned in the checkpoint at `path`; None where there is none."""
    return max((int(name) for name in files.list_names(spark, f"{path}/offsets") if name.isdigit()), default=None)


def read_object(spark: SparkSession, checkpoint: str, name: str) -> dict[str, Any]:
    """Read the JSON object in a file of the project's own in a checkpoint.

    Raises CheckpointError where it is empty or cut: a disk that was full, or a copy that was not finished.
    """
    try:
        found = json.loads(files.read_text(spark, f"{checkpoint}/{name}"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        msg = (
            f"The file {name} of the checkpoint {checkpoint} is empty or cut, expected a JSON object; nothing can go on from it: "
            "see playbooks/checkpoint-lost.md, or give a new path."
        )
        raise CheckpointError(msg)
    return found


def _read_marker(spark: SparkSession, path: str) -> dict[str, Any]:
    """The marker's fields. One that has more was made by a version that may mean more by it than this one knows."""
    found = read_object(spark, path, MARKER)
    own = {one.name for one in fields(Checkpoint)} - {"path", "is_new"}
    if missing := sorted(own - {"versions"} - set(found)):
        msg = (
            f"The file {MARKER} of the checkpoint {path} has no {', '.join(missing)}, so it does not say whose that is; "
            "see playbooks/checkpoint-lost.md, or give a new path."
        )
        raise CheckpointError(msg)
    unknown = sorted(set(found) - own)
    if unknown:
        msg = (
            f"The checkpoint {path} was made by a newer version of this project ({MARKER} has {', '.join(unknown)}, which this "
            "one does not know); go on with that version, or give a new path for a new generation."
        )
        raise CheckpointError(msg)
    return found


def _refuse_foreign(checkpoint: Checkpoint, expected: dict[str, str], starting: str) -> None:
    found = asdict(checkpoint)
    for key, value in expected.items():
        if found[key] != value:
            msg = (
                f"The checkpoint {checkpoint.path} belongs to {key} {found[key]}, expected {value}; "
                "give the checkpoint of this job, or a new path for a new generation."
            )
            raise CheckpointError(msg)
    if starting and starting != checkpoint.starting:
        msg = (
            f"The checkpoint {checkpoint.path} already knows where to go on, so other offsets, dates or --on-conflict have no "
            "effect on it; leave the flags out, or give a new path."
        )
        raise CheckpointError(msg)


def planned_offsets(spark: SparkSession, checkpoint: Checkpoint, batch_id: int) -> tuple[dict[int, int], dict[int, int]]:
    """First and end (exclusive) Kafka offset for each partition of `batch_id`, as Spark planned them.

    Source: Spark's offset log; batch 0 starts where `sources/0/0` says, a partition that was added starts at its
    beginning, which the log does not tell and which is left out of the first map.
    """
    end = _offsets_of(spark, f"{checkpoint.path}/offsets/{batch_id}")
    first = f"{checkpoint.path}/sources/0/0" if batch_id == 0 else f"{checkpoint.path}/offsets/{batch_id - 1}"
    return _offsets_of(spark, first), end


def source_version(spark: SparkSession, checkpoint: Checkpoint, batch_id: int) -> int:
    """Version of the source table up to which `batch_id` reads: those before it are read whole, this one perhaps in part.

    Source: Spark's offset log of a stream that reads a Delta table.
    """
    last_line = files.read_text(spark, f"{checkpoint.path}/offsets/{batch_id}").strip().splitlines()[-1]
    return int(json.loads(last_line)["reservoirVersion"])


def _offsets_of(spark: SparkSession, path: str) -> dict[int, int]:
    last_line = files.read_text(spark, path).strip().splitlines()[-1]
    by_topic: dict[str, Any] = json.loads(last_line)
    return {int(partition): int(offset) for offsets in by_topic.values() for partition, offset in offsets.items()}
