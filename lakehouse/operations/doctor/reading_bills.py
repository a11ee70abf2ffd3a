"""Reads which closed days' live figures differ from bill and adjustments, and which days wait at the gate.

The former are two narrow aggregates, none where no day is closed; the latter are the audits' results.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from lakehouse.operations.checkpoints.lake_tables import find_table
from lakehouse.operations.doctor.facts import ClosedDay, RefusedDay
from pipelines.gold.gate.results import QualityStore, waiting
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.settings import Settings
from pipelines.lake.tables import ADJUSTMENTS, GOLD_DAILY, GOLD_HOURLY

Counts = dict[tuple[date, str], int]
_NEWEST_DAYS = 7
"""Closed days that are looked at: an event that comes later than that is found by the daily batch's own look back."""


def read_closed_days(settings: Settings) -> tuple[ClosedDay, ...]:
    """Compare the events of the newest closed days, for each customer."""
    daily, hourly, adjustments = (find_table(settings, name) for name in (GOLD_DAILY, GOLD_HOURLY, ADJUSTMENTS))
    if daily is None or hourly is None:
        return ()
    columns = ["day", "customer_id", "event_count", "billing_status"]
    bill = rows_dataset(daily).to_table(columns=columns)
    bill = bill.filter(pc.equal(bill.column("billing_status"), "final"))
    days = sorted(set(bill.column("day").to_pylist()))[-_NEWEST_DAYS:]
    if not days:
        return ()
    billed = _counts(bill.to_pylist(), days)
    for key, count in _counts(_adjustments(adjustments), days).items():
        billed[key] = billed.get(key, 0) + count
    live = _live(hourly, days)
    off = {key: live.get(key, 0) - billed.get(key, 0) for key in live.keys() | billed.keys()}
    return tuple(
        ClosedDay(day, sum(found), len(found))
        for day in days
        if (found := [count for (of, _), count in off.items() if of == day and count])
    )


def read_refused_days(settings: Settings) -> tuple[RefusedDay, ...]:
    """Read the days that wait at the gate, the oldest first."""
    refused = waiting(QualityStore(settings).audits())
    return tuple(
        RefusedDay(day, audit.audited_at, tuple(one.expectation for one in audit.blocking)) for day, audit in refused.items()
    )


def _adjustments(table: DeltaTable | None) -> list[dict[str, Any]]:
    if table is None:
        return []
    rows: list[dict[str, Any]] = rows_dataset(table).to_table(columns=["day", "customer_id", "event_count"]).to_pylist()
    return rows


def _counts(rows: Iterable[dict[str, Any]], days: list[date]) -> Counts:
    found: Counts = {}
    for row in rows:
        if row["day"] in days:
            key = (row["day"], row["customer_id"])
            found[key] = found.get(key, 0) + row["event_count"]
    return found


def _live(table: DeltaTable, days: list[date]) -> Counts:
    first, end = (datetime.combine(day, time(), UTC) for day in (days[0], days[-1] + timedelta(days=1)))
    hour, kind = pc.field("hour"), pa.timestamp("us", tz="UTC")
    between = (hour >= pa.scalar(first, kind)) & (hour < pa.scalar(end, kind))
    rows = rows_dataset(table).to_table(columns=["hour", "customer_id", "event_count"], filter=between)
    summed = rows.group_by(["hour", "customer_id"]).aggregate([("event_count", "sum")])
    return _counts(
        (
            {"day": row["hour"].date(), "customer_id": row["customer_id"], "event_count": row["event_count_sum"]}
            for row in summed.to_pylist()
        ),
        days,
    )
