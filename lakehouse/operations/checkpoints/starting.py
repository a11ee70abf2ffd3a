"""Where a job goes on from when its checkpoint is lost, as the tables and the ledger say.

Rather too early than too late: what is read again is found in the tables and changes nothing; what is skipped is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from deltalake import DeltaTable

from lakehouse.operations.checkpoints.bronze_rows import BronzeRows, Offsets, Ranges
from lakehouse.operations.checkpoints.ledger_rows import LedgerRow
from pipelines.lake.delta_log.commits import newest_commits
from pipelines.lake.ledger.ledger import merge_ranges
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
    gaps = subtract(covered(written), covered(rows))
    # Most gaps are lawful holes (transaction markers): only rows count.
    missed = BronzeRows(table).offsets_in(gaps) if gaps else {}
    return min([read, *(row.versions[name] for row in written if _holds_any(row, missed))])


def covered(rows: Iterable[LedgerRow]) -> dict[int, list[tuple[int, int]]]:
    """For each Kafka partition the ranges of offsets that the batches of `rows` read, without the holes that they saw."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    for row in rows:
        for partition, (start, stop) in row.offsets.items():
            if stop > start:
                edges = [start, *(edge for hole in row.holes.get(partition, []) for edge in hole), stop]
                ranges.setdefault(int(partition), []).extend(zip(edges[::2], edges[1::2], strict=True))
    return {partition: merge_ranges(found) for partition, found in ranges.items()}


def subtract(whole: Ranges, part: Ranges) -> dict[int, list[tuple[int, int]]]:
    """Give what of `whole` is not in `part`; partitions without a rest are left out."""
    rest: dict[int, list[tuple[int, int]]] = {}
    for partition, ranges in whole.items():
        for start, stop in ranges:
            reached = start
            for first, end in [*part.get(partition, []), (stop, stop)]:
                if reached < min(first, stop):
                    rest.setdefault(partition, []).append((reached, min(first, stop)))
                reached = max(reached, end)
    return rest


def _holds_any(row: LedgerRow, missed: Mapping[int, Offsets]) -> bool:
    return any(
        np.searchsorted(missed[int(partition)], start) < np.searchsorted(missed[int(partition)], stop)
        for partition, (start, stop) in row.offsets.items()
        if int(partition) in missed
    )


def silver_version_for_gold(settings: Settings, gold: Iterable[LedgerRow], begins: int) -> int:
    """Version of Silver that Gold reads on from: the last of those that its batches read without a gap, from the first on.

    A version that changed no row (a new column, a compaction) is no gap: the change feed has nothing of it. Versions before
    `begins`, where Silver's log begins, can no longer be read and are not looked at.
    """
    key = "silver_version"
    reached = begins - 1
    for first, last in sorted((row.offsets[key][0], row.offsets[key][1]) for row in gold if row.offsets.get(key)):
        if any(_changes_rows(settings, version) for version in range(reached + 1, first)):
            break
        reached = max(reached, last)
    return max(reached, begins)


def _changes_rows(settings: Settings, version: int) -> bool:
    return any(commit.changes_rows for commit in newest_commits(SILVER.path(settings), version, at_most=1))
