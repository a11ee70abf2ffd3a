"""The lake's tables by name: where each lies and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.common.settings import Settings


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


BRONZE = TableName("bronze", "api_usage_events")
DLQ = TableName("bronze", "api_usage_events_dlq")
SILVER = TableName("silver", "api_usage_events")
GOLD_HOURLY = TableName("gold", "api_usage_hourly")
GOLD_DAILY = TableName("gold", "api_usage_daily")
ADJUSTMENTS = TableName("gold", "billing_adjustments")
LEDGER = TableName("ops", "batch_ledger")
RECONCILIATION = TableName("ops", "reconciliation")
KNOWN_GAPS = TableName("ops", "known_gaps")
CIRCUIT_BREAKER = TableName("ops", "circuit_breaker")
BRONZE_ARCHIVE = TableName("ops", "bronze_archive")

ALL_TABLES = (
    BRONZE,
    DLQ,
    SILVER,
    GOLD_HOURLY,
    GOLD_DAILY,
    ADJUSTMENTS,
    LEDGER,
    RECONCILIATION,
    KNOWN_GAPS,
    CIRCUIT_BREAKER,
    BRONZE_ARCHIVE,
)
