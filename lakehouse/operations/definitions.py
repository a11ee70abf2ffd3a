"""Definitions of the tables that events and the bill go through, as their jobs create them."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.bronze import schema as bronze
from pipelines.gold import schema as gold
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.settings import Settings
from pipelines.lake.tables import TableDef, TableName
from pipelines.silver import schema as silver


def definitions(settings: Settings) -> Mapping[TableName, TableDef]:
    """Give each table's definition; Silver's depends on the event schemas, so raises as `read_schemas`."""
    return {
        table.name: table
        for table in (
            bronze.TABLE,
            silver.silver_table(read_schemas(settings.schemas_dir)),
            silver.DLQ_TABLE,
            gold.HOURLY_TABLE,
            gold.DAILY_TABLE,
            gold.ADJUSTMENTS_TABLE,
        )
    }
