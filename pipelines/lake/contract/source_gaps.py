"""Whether a stream can go on reading its source table, or somebody's OPTIMIZE and VACUUM, or a property, took what comes next.

Silver reads the data files that each version of Bronze added, Gold the change data of each version of Silver. A file that was
compacted away stays until VACUUM deletes it, by default a week later. The rows themselves are still in the table: a new
generation that reads the table as it stands loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pa_fs
from deltalake import DeltaTable

from pipelines.lake.contract.contract import CHANGE_FEED
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.errors import DamagedError
from pipelines.lake.places import place_of
from pipelines.lake.storage.arrow_storage import table_storage

_LOOKED_AT = 500
"""Commits from the reader's position on: of those that come later it is said when the reader comes to them."""
_FEED_OFF = f"the change feed was off ({CHANGE_FEED})"


@dataclass(frozen=True)
class Gap:
    """What keeps a reader from going on: the first version that cannot be read, and why."""

    version: int
    why: str


def find_gap(table: DeltaTable, since: int, *, change_feed: bool) -> Gap | None:
    """The first version from `since` on that a stream cannot read; None where it can read all that the log still has.

    `change_feed`: for a reader of changes. A file that is gone and belongs to the table still is damage, and no gap. Versions
    before the log begins are for others to judge.
    """
    storage = table_storage(table)
    current = {unquote(path) for path in pa.table(table.get_add_actions()).column("path").to_pylist()}
    found: Gap | None = None
    was_set = False
    last = min(table.version(), since + _LOOKED_AT - 1)
    for commit in newest_commits(place_of(table), last, after=since - 1):
        if change_feed and commit.configuration is not None:
            was_set = True
            if not _is_on(commit.configuration):
                found = Gap(commit.version, _FEED_OFF)
                continue
        # Of a version with change data that alone is read, otherwise what it added and removed.
        paths = commit.changes or ((*commit.appends, *commit.removes) if change_feed else commit.appends)
        wanted = [unquote(path) for path in paths if unquote(path) not in current]
        if any(info.type == pa_fs.FileType.NotFound for info in (storage.get_file_info(wanted) if wanted else ())):
            found = Gap(commit.version, "files that it added were compacted and then deleted (OPTIMIZE and VACUUM)")
    # Nobody has changed a property since, so it was then as it is now.
    is_known = last == table.version() and not was_set and _is_on(table.metadata().configuration)
    if change_feed and since <= last and not is_known and not _was_on(table, since):
        return Gap(since, _FEED_OFF)
    return found


def find_snapshot_gap(table: DeltaTable, version: int) -> Gap | None:
    """The same for a reader of the table as it stood at `version`, file by file."""
    names = [
        {unquote(path) for path in pa.table(one.get_add_actions()).column("path").to_pylist()}
        for one in (existing_table(place_of(table), version=version), table)
    ]
    wanted = sorted(names[0] - names[1])
    gone = any(info.type == pa_fs.FileType.NotFound for info in (table_storage(table).get_file_info(wanted) if wanted else ()))
    return Gap(version, "files of it were compacted and then deleted (OPTIMIZE and VACUUM)") if gone else None


def _was_on(table: DeltaTable, version: int) -> bool:
    """Whether the change feed was on at `version`; so it counts where that version cannot be opened."""
    try:
        return _is_on(existing_table(place_of(table), version=version).metadata().configuration)
    except DamagedError:
        return True


def _is_on(configuration: Mapping[str, str]) -> bool:
    return str(configuration.get(CHANGE_FEED, "false")).lower() == "true"
