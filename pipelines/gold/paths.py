"""Names the tables that the daily batch reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.lake.settings import Settings
from pipelines.lake.tables import (
    ADJUSTMENTS,
    BRONZE,
    CANDIDATES,
    DLQ,
    GOLD_DAILY,
    GOLD_HOURLY,
    LEDGER,
    RECONCILIATION,
    SILVER,
)


@dataclass(frozen=True)
class Paths:
    """Where the daily batch reads and writes. What the lake knows of its Silver is None where Silver is another table."""

    silver: str
    hourly: str
    daily: str
    reconciliation: str
    adjustments: str
    candidates: str
    ledger: str | None = None
    bronze: str | None = None
    dlq: str | None = None

    @staticmethod
    def of(settings: Settings, *, silver: str | None = None, gold: str | None = None) -> Paths:
        """The tables of the settings' lake, or another Silver table and another folder of the Gold tables."""
        folder = gold.rstrip("/") if gold else None
        hourly, daily, adjustments, candidates = (
            f"{folder}/{name.table}" if folder else name.path(settings)
            for name in (GOLD_HOURLY, GOLD_DAILY, ADJUSTMENTS, CANDIDATES)
        )
        ledger, bronze, dlq = (None if silver else name.path(settings) for name in (LEDGER, BRONZE, DLQ))
        reconciliation = RECONCILIATION.path(settings)
        return Paths(silver or SILVER.path(settings), hourly, daily, reconciliation, adjustments, candidates, ledger, bronze, dlq)
