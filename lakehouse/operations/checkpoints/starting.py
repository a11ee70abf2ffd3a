"""Where a job goes on from when its checkpoint is lost, as the tables and the ledger say.

Rather too early than too late: what is read again is found in the tables and changes nothing; what is skipped is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from deltalake import DeltaTable

from lakehouse.operations.checkpoints.bronze_rows import BronzeRows, Offsets
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.ledger.ranges import covered_by, subtract
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, SILVER


def bronze_version_for_silver(table: DeltaTable, silver: Iterable[LedgerRow], bronze: Iterable[LedgerRow]) -> int:
    """Version of Bronze that Silver reads on from: up to which its last batch had read, or the first that it did not cover.

    The second matters where a replay of a late part ran beside the stream: its row is the newest, but not the stream's. 0
    where no row tells.
    """
    name = str(BRONZE)
    rows = sorted(silver, key=lambda row: row.committed_at)
    read = next((row.versions[name] for row in reversed(rows) if name in row.versions), 0)
    if read > table.version() + 1:  # the log was replaced by an older one: its versions mean something else now
        return 0
    # A stream that has read all stands before the version that comes next, which cannot be named as a start yet.
    read = min(read, table.version())
    written = [row for row in bronze if row.versions.get(name, read) < read]
    gaps = subtract(covered_by(written), covered_by(rows))
    # Most gaps are lawful holes (transaction markers): only rows count.
    missed = BronzeRows(table).offsets_in(gaps) if gaps else {}
    return min([read, *(row.versions[name] for row in written if _holds_any(row, missed))])


def _holds_any(row: LedgerRow, missed: Mapping[int, Offsets]) -> bool:
    return any(
        np.searchsorted(missed[partition], start) < np.searchsorted(missed[partition], stop)
        for partition, (start, stop) in row.spans.items()
        if partition in missed
    )


def silver_version_for_gold(settings: Settings, gold: Iterable[LedgerRow], begins: int) -> int:
    """Version of Silver that Gold reads on from: the last of those that its batches read without a gap, from the first on.

    A version that changed no row (a new column, a compaction) is no gap: the change feed has nothing of it. Versions before
    `begins`, where Silver's log begins, can no longer be read and are not looked at.
    """
    reached = begins - 1
    for first, last in sorted(row.silver_versions for row in gold if row.silver_versions):
        if any(_changes_rows(settings, version) for version in range(reached + 1, first)):
            break
        reached = max(reached, last)
    return max(reached, begins)


def _changes_rows(settings: Settings, version: int) -> bool:
    return any(commit.changes_rows for commit in newest_commits(SILVER.path(settings), version, at_most=1))
