"""Tells by the frames of a trace what the code was doing: computing on records, reading a table's log, reading a checkpoint."""

from __future__ import annotations

import re

_READS_CHECKPOINT = re.compile(r"\bat \S+\.streaming\.checkpointing\.\w+\.deserialize\(|\bat \S+SourceOffset\$?\.apply\(")
_IN_A_TASK = re.compile(r"\bat org\.apache\.spark\.(?:scheduler\.Task\.run|executor\.Executor\$TaskRunner\.)|TASK_WRITE_FAILED")
_READS_A_LOG = re.compile(
    r"\bat org\.apache\.spark\.sql\.delta\.(?:Snapshot|SnapshotState|SnapshotManagement|Checkpoints|DeltaHistoryManager"
    r"|stats\.DataSkippingReader)\w*[.$]"
)
_FRAME = re.compile(r'\s*(?:at \S+\(|File ")')
"""A line of a stack: it names classes that failed nothing."""


def is_frame(line: str) -> bool:
    """Whether a line of a trace is a frame of Python or Java."""
    return bool(_FRAME.match(line))


def without_frames(trace: str) -> str:
    """The lines of a trace that say what failed."""
    return "\n".join(line for line in trace.splitlines() if not is_frame(line))


def is_in_a_task(trace: str) -> bool:
    """Whether an executor's task failed: what the driver itself does is planning, logs, ledgers and leases, and no record."""
    return bool(_IN_A_TASK.search(trace))


def computes_on_records(trace: str) -> bool:
    """Whether a task failed that was computing on records; Delta reads a table's log by tasks too."""
    return is_in_a_task(trace) and not _READS_A_LOG.search(trace)


def reads_checkpoint(trace: str) -> bool:
    """Whether Spark was reading a checkpoint's file: what cannot be understood there is no record."""
    return bool(_READS_CHECKPOINT.search(trace))
