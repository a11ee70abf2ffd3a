"""Tells which versions a table's log still has, by the names of its files."""

from __future__ import annotations

import re

from pipelines.lake.storage.backends import open_storage

COMMIT = re.compile(r"(\d{20})\.json")
LOG_FILE = re.compile(r"\d{20}\.(?:[\w-]+\.)*(?:json|parquet|crc)")
"""Commits, checkpoints, compactions and checksums; a file that a writer prepares has another name (`….json#1` of deltalake)."""


def log_begins(path: str) -> int:
    """First version whose commit the log of the table at `path` still has; older ones cannot be read as a stream."""
    return min(_versions(path), default=0)


def has_commit(path: str, version: int) -> bool:
    """Whether the log of the table at `path` still has the commit of `version`."""
    return version in _versions(path)


def _versions(path: str) -> set[int]:
    names = open_storage(f"{path}/_delta_log").names()
    return {int(found[1]) for name in names if (found := COMMIT.fullmatch(name))}
