"""Definitions of the lake's tables, as their jobs create them."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.archive import records
from pipelines.bronze import schema as bronze
from pipelines.gold import schema as gold
from pipelines.gold.gate import results
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.ledger import known_gaps
from pipelines.lake.ledger import schema as ledger
from pipelines.lake.settings import Settings
from pipelines.lake.tables import TableDef, TableName
from pipelines.silver import schema as silver
from pipelines.silver.breaker import breaker_store


def definitions(settings: Settings) -> Mapping[TableName, TableDef]:
    """Tables that events and the bill go through; Silver's depends on the event schemas, so raises as `read_schemas`."""
    return {
        table.name: table
        for table in (
            bronze.TABLE,
            silver.silver_table(read_schemas(settings.schemas_dir)),
            silver.DLQ_TABLE,
            gold.BY_KEY_TABLE,
            gold.HOURLY_TABLE,
            gold.DAILY_TABLE,
            gold.ADJUSTMENTS_TABLE,
            gold.CANDIDATES_TABLE,
        )
    }


def all_definitions(settings: Settings) -> Mapping[TableName, TableDef]:
    """Every table of the lake: `definitions`, and those of `ops`."""
    ops = (gold.RECONCILIATION_TABLE, known_gaps.TABLE, ledger.TABLE, breaker_store.TABLE, records.TABLE, results.TABLE)
    return {**definitions(settings), **{table.name: table for table in ops}}
