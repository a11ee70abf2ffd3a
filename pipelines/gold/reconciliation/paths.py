"""Names the tables that the reconciliation reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.lake.settings import Settings
from pipelines.lake.tables import ADJUSTMENTS, GOLD_DAILY, GOLD_HOURLY, RECONCILIATION, SILVER


@dataclass(frozen=True)
class Paths:
    """Where the reconciliation reads and writes."""

    silver: str
    hourly: str
    daily: str
    reconciliation: str
    adjustments: str

    @staticmethod
    def of(settings: Settings, *, silver: str | None = None, gold: str | None = None) -> Paths:
        """The tables of the settings' lake, or another Silver table and another folder of the Gold tables."""
        folder = gold.rstrip("/") if gold else None
        hourly, daily, adjustments = (
            f"{folder}/{name.table}" if folder else name.path(settings) for name in (GOLD_HOURLY, GOLD_DAILY, ADJUSTMENTS)
        )
        return Paths(silver or SILVER.path(settings), hourly, daily, RECONCILIATION.path(settings), adjustments)
