"""What the lake's tables say about a job's checkpoint: their ids, how far their logs reach, which batches they have."""

from __future__ import annotations

from deltalake import DeltaTable

from pipelines.lake.checkpoint.identity import Marker
from pipelines.lake.contract.sentences import damage_sentence
from pipelines.lake.delta_log.derived_files import find_damage
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.errors import DamagedError, UsageError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.kafka.topic import TOPIC_ID_PROPERTY
from pipelines.lake.ledger.reader import LedgerReader
from pipelines.lake.places import place_of
from pipelines.lake.settings import Settings
from pipelines.lake.tables import LEDGER, TableName

_TRANSACTIONS = 50
"""Commits looked through for a transaction id: a stream's last one is among the newest."""


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
    found = {name: find_table(settings, name) for name in JOBS[job].written}
    return {str(name): table.version() for name, table in found.items() if table is not None}


def ledger_reader(settings: Settings) -> LedgerReader:
    """The batch ledger as it is now; a damaged derived file is named, as by `find_table`."""
    return LedgerReader(find_table(settings, LEDGER))


def topic_id(table: DeltaTable) -> str | None:
    """Kafka's id of the topic that Bronze holds."""
    found: str | None = table.metadata().configuration.get(TOPIC_ID_PROPERTY)
    return found


def transactions(settings: Settings, marker: Marker) -> dict[TableName, int | None]:
    """For each table that takes ids from the job: the last batch of the checkpoint's generation that it has."""
    found: dict[TableName, int | None] = {}
    for part, name in JOBS[marker.job].transactions.items() if marker.job in JOBS else ():
        table = find_table(settings, name)
        done = None if table is None else _last_transaction(table, marker.app_id(part))
        found[name] = max((one for one in (done, found.get(name)) if one is not None), default=None)
    return found


def _last_transaction(table: DeltaTable, app_id: str) -> int | None:
    """The last batch of an app id, from the commits: deltalake takes a checksum file for true, and that may be wrong."""
    for commit in newest_commits(place_of(table), table.version(), at_most=_TRANSACTIONS):
        if app_id in commit.transactions:
            return commit.transactions[app_id]
    return table.transaction_version(app_id)
