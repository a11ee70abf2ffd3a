"""Tells which versions a table's log still has, by the names of its commits."""

from __future__ import annotations

import re

from pipelines.lake.storage.backends import open_storage

_COMMIT = re.compile(r"(\d{20})\.json")


def log_begins(path: str) -> int:
    """First version whose commit the log of the table at `path` still has; older ones cannot be read as a stream."""
    return min(_versions(path), default=0)


def has_commit(path: str, version: int) -> bool:
    """Whether the log of the table at `path` still has the commit of `version`."""
    return version in _versions(path)


def _versions(path: str) -> set[int]:
    names = open_storage(f"{path}/_delta_log").names()
    return {int(found[1]) for name in names if (found := _COMMIT.fullmatch(name))}
