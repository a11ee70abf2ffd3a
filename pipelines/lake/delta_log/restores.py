"""Finds the RESTOREs in a table's log, whoever made them: what they took back, a stream would not read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipelines.lake.delta_log.commit import Commit
from pipelines.lake.delta_log.history import newest_commits

LOOK_BACK = 200
"""Commits looked through where no version is known that all RESTOREs are wanted since."""


@dataclass(frozen=True)
class Restore:
    """A RESTORE in a table's log: the version that it is, and the one that it went back to; None where it does not say."""

    version: int
    kept: int | None

    def taken_back(self, written: Iterable[int | None]) -> int:
        """How many of the versions that batches wrote are gone by it; none where it does not say what it kept."""
        if self.kept is None:
            return 0
        return sum(version is not None and self.kept < version < self.version for version in written)


@dataclass(frozen=True)
class FoundRestores:
    """RESTOREs, the newest first, and the oldest version that was looked at: the log may not reach further back."""

    restores: tuple[Restore, ...]
    oldest: int


def find_restores(path: str, version: int, *, since: int | None = None, at_least: int = LOOK_BACK) -> FoundRestores:
    """Look through the commits of the table at `path` from `version` down, `at_least` so many.

    Where `since` is given, every RESTORE after that version is found, however many commits there are, as far as the log reaches.
    """
    after = version - at_least if since is None else min(since, version - at_least)
    found: list[Restore] = []
    oldest = version + 1
    for commit in newest_commits(path, version, after=max(after, -1)):
        oldest = commit.version
        if commit.operation == "RESTORE":
            found.append(Restore(commit.version, commit.restored_to))
    return FoundRestores(tuple(found), oldest)


def without_taken_back(commits: Iterable[Commit]) -> Iterator[Commit]:
    """Of `commits`, the newest first, those whose writes no later RESTORE among them took back; RESTOREs are among them."""
    kept: int | None = None
    for commit in commits:
        if kept is None or commit.version <= kept:
            yield commit
            # A RESTORE that was itself taken back took nothing back for good: it is never seen here.
            kept = kept if commit.restored_to is None else commit.restored_to
