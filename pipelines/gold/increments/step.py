"""Decides what a Gold table does next to stand for its source as it is now. Pure: commits in, one step out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipelines.gold.increments.position import Position, Void
from pipelines.lake.contract.contract import CHANGE_FEED
from pipelines.lake.delta_log.commit import Commit
from pipelines.lake.delta_log.marks import LOST_FILES


@dataclass(frozen=True)
class Limits:
    """How much one step reads: whole versions of at most `step_bytes`, or one that has more.

    A version with more than `recompute_bytes` has replaced so much that a recompute is cheaper. `few_keys`: so many are merged in
    this process.
    """

    step_bytes: int
    recompute_bytes: int
    few_keys: int = 20_000


@dataclass(frozen=True)
class Idle:
    """Nothing has changed."""


@dataclass(frozen=True)
class Apply:
    """Take over what versions `after` + 1 to `upto` of the source changed: whole versions."""

    after: int
    upto: int


@dataclass(frozen=True)
class Recompute:
    """Compute anew, from the source at `version`, the hours that differ; `why`: half a sentence."""

    version: int
    why: str


Step = Idle | Apply | Recompute


def next_step(position: Position | Void, oldest_first: Iterable[Commit], current: int, limits: Limits) -> Step:
    """The next step of a table at `position`.

    `oldest_first`: the source's commits from the one after the position on, as far as its log has them; read no further than the
    step reaches. `current`: the source's version now.
    """
    if isinstance(position, Void):
        return Recompute(current, position.why)
    after = position.source_version
    if after > current:
        return Recompute(current, f"it stands for version {after} of its source, which has come to {current} only")
    upto, why = _reach(after, iter(oldest_first), current, limits)
    if upto > after:
        # What comes before an obstacle is taken over first: it may be much, and it is right.
        return Apply(after, upto)
    return Recompute(current, why) if why else Idle()


def _reach(after: int, commits: Iterator[Commit], current: int, limits: Limits) -> tuple[int, str | None]:
    """The last version that one step can take over, and the obstacle that is behind it, if there is one."""
    upto, size = after, 0
    for version in range(after + 1, current + 1):
        commit = next(commits, None)
        if commit is None or commit.version != version:
            return upto, f"the log of its source has no version {version} any more"
        if why := _obstacle(commit, limits):
            return upto, why
        if commit.changes_rows:
            size += commit.changed_bytes
            if upto > after and size > limits.step_bytes:
                return upto, None
            upto = version
    return upto, None


def _obstacle(commit: Commit, limits: Limits) -> str | None:
    """Why the source's changes cannot be read over this commit, or should not; None where they can."""
    if commit.operation == "RESTORE":
        return f"version {commit.version} of its source is a RESTORE"
    if commit.configuration is not None and commit.configuration.get(CHANGE_FEED, "false").lower() != "true":
        return f"version {commit.version} of its source switched the change feed off"
    if commit.note("rebuild").get(LOST_FILES):
        return f"version {commit.version} of its source took the place of files that cannot be read"
    if commit.changed_bytes > limits.recompute_bytes:
        return f"version {commit.version} of its source changed {commit.changed_bytes:,} bytes"
    return None
