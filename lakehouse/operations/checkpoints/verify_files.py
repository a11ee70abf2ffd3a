"""Whether a checkpoint's files fit each other: none broken or missing, offsets that only grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from lakehouse.operations.checkpoints.findings import BROKEN, RUN_BACK, Finding, batches, listed
from lakehouse.operations.checkpoints.reading import INITIAL, METADATA, CheckpointState
from pipelines.lake.checkpoint.identity import MARKER
from pipelines.lake.checkpoint.spark_files import DeltaPosition, KafkaPosition, Position
from pipelines.lake.job_tables import JOBS


def check_files(state: CheckpointState) -> Iterator[Finding]:
    """Look at the files alone."""
    for file in state.broken:
        yield Finding("broken-file", "error", f"{file.name} {file.problem}.", BROKEN)
    yield from _check_marker(state)
    if state.planned_ids and METADATA not in state.entries:
        message = f"The file `{METADATA}` is missing although batches were planned, and Spark will refuse the checkpoint."
        yield Finding("no-metadata", "error", message, BROKEN)
    yield from _check_sequence(state)
    yield from _check_positions(state)


def _check_marker(state: CheckpointState) -> Iterator[Finding]:
    marker = state.marker
    if marker is None:
        if MARKER not in state.entries:
            message = f"The file {MARKER} is missing: nothing says whose the checkpoint is, and the jobs refuse it."
            yield Finding("no-marker", "error", message, BROKEN)
        return
    if marker.job not in JOBS:
        message = f"{MARKER} names the job {marker.job}, expected one of {', '.join(JOBS)}."
        yield Finding("foreign-marker", "error", message, BROKEN)
    elif state.planned_ids and marker.job == "bronze" and INITIAL not in state.entries:
        message = f"The file {INITIAL} is missing: nothing says where batch 0 began."
        yield Finding("no-initial-offsets", "warning", message, BROKEN)


def _check_sequence(state: CheckpointState) -> Iterator[Finding]:
    planned, committed = state.planned_ids, state.commit_ids
    missing = _missing(planned)
    if missing:
        # Spark reads the last batch and the one before it; older ones it only keeps.
        needed = planned[-1] - 1 in missing
        message = f"Offsets of batch {batches(missing)} are missing between others{', and Spark needs them' if needed else ''}."
        yield Finding("hole", "error" if needed else "warning", message, BROKEN)
    if missing := _missing(committed):
        message = f"Commits of batch {batches(missing)} are missing between others; later batches ran, so these did too."
        yield Finding("hole", "warning", message, BROKEN)
    last_planned, last_committed = planned[-1] if planned else -1, committed[-1] if committed else -1
    if last_committed > last_planned:
        message = (
            f"Commits reach batch {last_committed}, offsets only {last_planned if planned else 'none'}: "
            "Spark would plan batches again that are done."
        )
        yield Finding("commits-ahead", "error", message, BROKEN)
    elif last_planned - last_committed > 1 and len(planned) > 1:
        message = (
            f"Offsets reach batch {last_planned}, commits only {last_committed if committed else 'none'}: commit files were "
            "lost; Spark repeats the last batch alone, which changes nothing."
        )
        yield Finding("commits-lost", "warning", message, BROKEN)


def _missing(ids: Sequence[int]) -> set[int]:
    return set(range(ids[0], ids[-1] + 1)) - set(ids) if ids else set()


def _check_positions(state: CheckpointState) -> Iterator[Finding]:
    positions: list[tuple[str, Position]] = [(INITIAL, state.initial)] if state.initial and 0 in state.planned else []
    positions += [(f"offsets/{batch}", planned.end) for batch, planned in state.planned.items()]
    expected = KafkaPosition if state.marker and state.marker.job == "bronze" else DeltaPosition
    if state.marker and state.marker.job in JOBS and any(not isinstance(position, expected) for _, position in positions):
        message = f"The offsets are not those of the source that {state.marker.job} reads: files of another checkpoint."
        yield Finding("foreign-offsets", "error", message, BROKEN)
        return
    for (_, before), (name, after) in pairwise(positions):
        if problem := _step_back(before, after):
            yield Finding(RUN_BACK, "error", f"{name} {problem}.", BROKEN)


def _step_back(before: Position, after: Position) -> str | None:
    if isinstance(before, KafkaPosition) and isinstance(after, KafkaPosition):
        if before.topic != after.topic:
            return f"is of topic {after.topic}, the batch before it of {before.topic}"
        lower = [
            f"partition {number}: {after.offsets.get(number, 'none')} after {offset}"
            for number, offset in before.offsets.items()
            if after.offsets.get(number, -1) < offset
        ]
        return f"lies before the batch before it ({listed(lower)})" if lower else None
    if isinstance(before, DeltaPosition) and isinstance(after, DeltaPosition):
        if before.table_id != after.table_id:
            return f"is of table {after.table_id}, the batch before it of {before.table_id}"
        if (after.version, after.index) < (before.version, before.index):
            return f"lies before the batch before it (version {after.version} after {before.version})"
        return None
    return "is of another source than the batch before it"
