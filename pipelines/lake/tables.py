"""The lake's tables by name: where each lies, and how a table is defined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.lake.settings import Settings


@dataclass(frozen=True)
class TableName:
    """A table `layer.table`; it lies at `<lake.root>/<layer>/<table>`."""

    layer: str
    table: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.table}"

    def path(self, settings: Settings) -> str:
        """Path or URI of the table under the settings' lake."""
        return f"{settings.lake.root.rstrip('/')}/{self.layer}/{self.table}"


@dataclass(frozen=True)
class Column:
    """A column of a table: name, Spark type, and what it means."""

    name: str
    type: str
    doc: str
    nullable: bool = True


@dataclass(frozen=True)
class TableDef:
    """A table as the project creates it: its columns give the DDL, the Arrow schema (arrow_types.py) and the docs.

    `keys`: columns that name a row. `stamps`: columns that say when and from what a row was made. `writer`: the job, or the
    command, that adds rows. `rebuilt_from`: the table that all rows can be made from again; None where they cannot.
    """

    name: TableName
    comment: str
    columns: tuple[Column, ...]
    properties: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()
    writer: str = ""
    rebuilt_from: TableName | None = None

    @property
    def column_names(self) -> list[str]:
        """Names in table order: the `select` that every writer ends with."""
        return [column.name for column in self.columns]

    @property
    def statistics(self) -> dict[str, str]:
        """The property that says which columns have statistics: a column that was added later is to have them too."""
        name = "delta.dataSkippingStatsColumns"
        return {name: self.properties[name]} if name in self.properties else {}


BRONZE = TableName("bronze", "api_usage_events")
DLQ = TableName("bronze", "api_usage_events_dlq")
SILVER = TableName("silver", "api_usage_events")
GOLD_BY_KEY = TableName("gold", "api_usage_by_key")
GOLD_HOURLY = TableName("gold", "api_usage_hourly")
GOLD_DAILY = TableName("gold", "api_usage_daily")
ADJUSTMENTS = TableName("gold", "billing_adjustments")
CANDIDATES = TableName("gold", "billing_candidates")
LEDGER = TableName("ops", "batch_ledger")
RECONCILIATION = TableName("ops", "reconciliation")
KNOWN_GAPS = TableName("ops", "known_gaps")
CIRCUIT_BREAKER = TableName("ops", "circuit_breaker")
BRONZE_ARCHIVE = TableName("ops", "bronze_archive")
QUALITY_RESULTS = TableName("ops", "quality_results")

ALL_TABLES = (
    BRONZE,
    DLQ,
    SILVER,
    GOLD_BY_KEY,
    GOLD_HOURLY,
    GOLD_DAILY,
    ADJUSTMENTS,
    CANDIDATES,
    LEDGER,
    RECONCILIATION,
    KNOWN_GAPS,
    CIRCUIT_BREAKER,
    BRONZE_ARCHIVE,
    QUALITY_RESULTS,
)
REVERSIBLE = (GOLD_HOURLY, GOLD_DAILY, SILVER, DLQ)
"""Tables that `lakehouse rollback` takes back to an older version."""
