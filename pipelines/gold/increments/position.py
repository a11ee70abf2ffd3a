"""Finds in a table's log the position: the version of its source that the table stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.lake.delta_log.commit import Commit
from pipelines.lake.delta_log.commit_values import whole
from pipelines.lake.delta_log.marks import APP_IDS, MARK

_NOTE, _LOOKED_AT = "position", "looked_at"


@dataclass(frozen=True)
class Position:
    """The table stands for `source_version`; its own log was looked through as far as `looked_at` when that was written."""

    source_version: int
    looked_at: int


@dataclass(frozen=True)
class Void:
    """There is no position to go on from; `why`: half a sentence."""

    why: str


@dataclass(frozen=True)
class Move:
    """What a commit does to the position that `app_id` holds: from `expected` (None: it holds none) to `to`.

    `looked_at`: the version of the table's own log that the writer had looked at.
    """

    app_id: str
    expected: int | None
    to: int
    looked_at: int


def position_id(table: str, source_id: str, definition: str) -> str:
    """The transaction id that holds the position of `table`: of this source, and of this definition of its measures alone."""
    digest = hashlib.sha256(definition.encode()).hexdigest()[:12]
    return f"{APP_IDS}{table}-of-{source_id}-as-{digest}"


def position_note(looked_at: int) -> Mapping[str, Any]:
    """What a commit that moves a position says of itself (`userMetadata`)."""
    return {MARK: "gold", _NOTE: {_LOOKED_AT: looked_at}}


def find_position(newest_first: Iterable[Commit], app_id: str) -> Position | Void:
    """The position that `app_id` holds, from the table's own commits; it reads no more of them than it needs.

    Void where rows were changed by anybody else since the position was written, a RESTORE included: a RESTORE takes rows back and
    leaves transaction ids as they are. "Since" is since the version that the position's writer had looked at: a stranger may
    have committed between that look and the writer's own commit.
    """
    position: Position | None = None
    for commit in newest_first:
        if app_id in commit.transactions:
            if position is None:
                looked_at = whole(commit.note(_NOTE).get(_LOOKED_AT))
                if looked_at is None or looked_at >= commit.version:
                    return Void(f"version {commit.version} does not say what its writer had looked at")
                position = Position(commit.transactions[app_id], looked_at)
        elif any(other.startswith(APP_IDS) for other in commit.transactions):
            return Void(f"version {commit.version} holds the position of another source, or of measures defined otherwise")
        elif commit.changes_rows:
            return Void(
                f"version {commit.version} ({commit.operation or 'of an unknown operation'}) was written by somebody else"
            )
        if position is not None and commit.version <= position.looked_at + 1:
            return position
    return Void("its log holds no position" if position is None else "its log does not reach back to what was looked at")
