"""What others did to the tables: properties and features, damaged derived files, commits that none of our writers marked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lakehouse.operations.definitions import definitions
from lakehouse.operations.doctor.facts import Foreign, Neighbours
from pipelines.lake.contract.contract import Difference
from pipelines.lake.contract.facts import differences_of
from pipelines.lake.delta_log.derived_files import Damage, find_damage
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.marks import APP_IDS, MARK
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.errors import DamagedError, LakehouseError, UnknownFeatureError
from pipelines.lake.places import is_local
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import is_there
from pipelines.lake.tables import (
    ADJUSTMENTS,
    ALL_TABLES,
    BRONZE_ARCHIVE,
    CIRCUIT_BREAKER,
    DLQ,
    GOLD_DAILY,
    GOLD_HOURLY,
    KNOWN_GAPS,
    LEDGER,
    RECONCILIATION,
    TableDef,
    TableName,
)

LOOKED_BACK = 300
"""Commits of a table that are looked at: a live stream makes one a second, and an operator waits."""
_ADDED_TO = (LEDGER, RECONCILIATION, KNOWN_GAPS, CIRCUIT_BREAKER, BRONZE_ARCHIVE)
_ONCE_UNMARKED = {
    GOLD_HOURLY: ("MERGE",),
    GOLD_DAILY: ("MERGE",),
    ADJUSTMENTS: ("MERGE",),
    DLQ: ("MERGE", "UPDATE"),
    BRONZE_ARCHIVE: ("DELETE", "UPDATE"),
}
"""Operations of our own that earlier versions of this project did not mark."""
_OWN_ID = f'"appId":"{APP_IDS}'
_MARKED = '"userMetadata":"{\\"' + MARK + '\\":'
_Found = tuple[TableName, tuple[Difference, ...], Damage | None, tuple[Foreign, ...]]


def read_neighbours(settings: Settings) -> Neighbours:
    """Look at each table that is there; one that cannot be opened has no differences and no commits here."""
    try:
        defined = definitions(settings)
    except LakehouseError:  # event schemas that cannot be read are named elsewhere
        defined = {}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: _read(settings, name, defined.get(name)), ALL_TABLES))
    return Neighbours(
        differences=tuple(one for _, differing, _, _ in found for one in differing),
        damage={name: damage for name, _, damage, _ in found if damage is not None},
        commits=tuple(one for _, _, _, foreign in found for one in foreign),
    )


def _read(settings: Settings, name: TableName, defined: TableDef | None) -> _Found:
    path = name.path(settings)
    if is_local(path) and not is_there(f"{path}/_delta_log"):
        return name, (), None, ()
    damage = find_damage(path)
    try:
        table = existing_table(path)
    except (DamagedError, UnknownFeatureError):  # findings of their own
        return name, (), damage, ()
    return name, tuple(differences_of(name, table, defined)), damage, tuple(by_hand(name, path, table.version()))


def by_hand(name: TableName, path: str, version: int) -> list[Foreign]:
    """Those of the newest commits of a table that changed rows and that none of our writers made, newest first.

    The first commit of a table makes it. An operation that our own writers did not mark in earlier versions counts only where
    the table has a mark from before it.
    """
    marks: list[int] = []

    def is_plainly_ours(number: int, content: str) -> bool:
        """Before a commit is parsed, which most need not be. Others' words cannot look so: a quote in them is escaped."""
        if _MARKED in content:
            marks.append(number)
            return True
        return _OWN_ID in content or (name in _ADDED_TO and '"remove"' not in content)

    commits = list(newest_commits(path, version, at_most=LOOKED_BACK, skip=is_plainly_ours))
    marks += [commit.version for commit in commits if isinstance(commit.said.get(MARK), str)]
    first = min(marks, default=None)
    found = []
    for commit in commits:
        if commit.version == 0 or not commit.changes_rows or commit.is_marked:
            continue
        if name in _ADDED_TO and commit.operation == "WRITE" and not commit.removes:
            continue
        was_unmarked = commit.operation in _ONCE_UNMARKED.get(name, ())
        if not was_unmarked or (first is not None and first < commit.version):
            found.append(Foreign(name, commit, "likely" if was_unmarked else "certain"))
    return found
