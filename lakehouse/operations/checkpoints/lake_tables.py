"""What the lake's tables say about a job's checkpoint: their ids, how far their logs reach, which batches they have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from deltalake import DeltaTable

from pipelines.lake.checkpoint.identity import Marker
from pipelines.lake.contract.sentences import damage_sentence
from pipelines.lake.delta_log.commits import newest_commits
from pipelines.lake.delta_log.derived_files import find_damage
from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.errors import DamagedError, UsageError
from pipelines.lake.settings import Settings
from pipelines.lake.tables import BRONZE, DLQ, GOLD_HOURLY, SILVER, TableName

TOPIC_ID_PROPERTY = "lakehouse.topicId"
"""As in pipelines/bronze/schema.py, which needs pyspark."""
_HISTORY = 200
"""Commits looked through for a RESTORE."""


_TRANSACTIONS = 50
"""Commits looked through for a transaction id: a stream's last one is among the newest."""


@dataclass(frozen=True)
class JobTables:
    """What a job reads (None: Kafka), the table that its checkpoint names as target, and where its batches leave an id."""

    source: TableName | None
    target: TableName
    transactions: dict[str, TableName] = field(default_factory=dict)
    """Part of the app id -> table. Gold has none: its MERGE is idempotent by itself."""


JOBS = {
    "bronze": JobTables(None, BRONZE, {"": BRONZE}),
    "silver": JobTables(BRONZE, SILVER, {"": SILVER, "dlq": DLQ}),
    "gold": JobTables(SILVER, GOLD_HOURLY),
}


def job_tables(job: str) -> JobTables:
    """The tables of a job; raises UsageError where there is no such job."""
    if job not in JOBS:
        msg = f"There is no job `{job}` with a checkpoint, expected one of {', '.join(JOBS)}; correct the name."
        raise UsageError(msg)
    return JOBS[job]


def find_table(settings: Settings, name: TableName) -> DeltaTable | None:
    """Open a table's log; None where there is no table. Raises as `opening.open_table`; a damaged derived file is named."""
    try:
        return open_table(name.path(settings))
    except DamagedError:
        damage = find_damage(name.path(settings))
        if damage is not None and not damage.is_lost:
            raise DamagedError(damage_sentence(name, damage)) from None
        raise


def require_table(settings: Settings, name: TableName) -> DeltaTable:
    """Open a table's log; raises UsageError where there is no table."""
    table = find_table(settings, name)
    if table is None:
        msg = (
            f"There is no table {name} at {name.path(settings)}, so there is nothing to go on from: start the job without a "
            "checkpoint, or correct `lake.root`."
        )
        raise UsageError(msg)
    return table


def table_id(table: DeltaTable) -> str:
    """Id that Delta gave the table when it was made."""
    return str(table.metadata().id)


def table_versions(settings: Settings, job: str) -> dict[str, int]:
    """Versions, now, of the tables in which the job's batches leave their ids."""
    found = {name: find_table(settings, name) for name in JOBS[job].transactions.values()}
    return {str(name): table.version() for name, table in found.items() if table is not None}


@dataclass(frozen=True)
class Restore:
    """A RESTORE in a table's log: the version that it is, and the one that it went back to."""

    version: int
    kept: int

    def taken_back(self, written: Iterable[int | None]) -> int:
        """How many of the versions that batches wrote are gone by it."""
        return sum(version is not None and self.kept < version < self.version for version in written)


def restores(table: DeltaTable, newest: int = _HISTORY) -> list[Restore]:
    """The RESTOREs among the table's newest commits, whoever made them."""
    commits = newest_commits(table.table_uri, table.version(), at_most=newest)
    return [Restore(one.version, one.restored_to) for one in commits if one.restored_to is not None]


def topic_id(table: DeltaTable) -> str | None:
    """Kafka's id of the topic that Bronze holds."""
    found: str | None = table.metadata().configuration.get(TOPIC_ID_PROPERTY)
    return found


def transactions(settings: Settings, marker: Marker) -> dict[TableName, int | None]:
    """For each table that takes ids from the job: the last batch of the checkpoint's generation that it has."""
    found: dict[TableName, int | None] = {}
    for part, name in JOBS[marker.job].transactions.items() if marker.job in JOBS else ():
        table = find_table(settings, name)
        found[name] = None if table is None else _last_transaction(table, marker.app_id(part))
    return found


def _last_transaction(table: DeltaTable, app_id: str) -> int | None:
    """The last batch of an app id, from the commits: deltalake takes a checksum file for true, and that may be wrong."""
    for commit in newest_commits(table.table_uri, table.version(), at_most=_TRANSACTIONS):
        if app_id in commit.transactions:
            return commit.transactions[app_id]
    return table.transaction_version(app_id)
