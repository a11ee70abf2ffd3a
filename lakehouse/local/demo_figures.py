"""The demo's figures, read from the tables and the op ledger with deltalake and Arrow, without Spark."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.lake.delta_log.opening import existing_table, open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import files_below
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, LEDGER, SILVER, TableName

_COUNTS = ("rows_read", "inserted", "replaced", "duplicate", "conflict", "dead_lettered", "tombstone", "late")


@dataclass(frozen=True)
class Conservation:
    """Records: acknowledged by Kafka, in Bronze, and with each fate."""

    acknowledged: int
    bronze: int
    silver: int
    duplicates: int
    dead_letters: int
    tombstones: int
    late: int
    conflicts: int

    @property
    def fates(self) -> int:
        """Records with a fate."""
        return self.silver + self.duplicates + self.dead_letters + self.tombstones

    @property
    def holds(self) -> bool:
        """Whether nothing is missing and nothing is there twice."""
        return self.acknowledged == self.bronze == self.fates


@dataclass(frozen=True)
class Bill:
    """What a customer used on a day; bytes are both directions."""

    customer: str
    events: int
    errors: int
    late: int
    bytes: int
    status: str


def count_batches(settings: Settings, job: str) -> Counter[str]:
    """Sum the batch ledger's counts of `job`; nothing where there is no ledger yet."""
    ledger = open_table(LEDGER.path(settings))
    if ledger is None:
        return Counter()
    rows = rows_dataset(ledger).to_table(columns=list(_COUNTS), filter=ds.field("job") == job)
    return Counter({name: pc.sum(rows[name]).as_py() or 0 for name in _COUNTS})


def count_acknowledged(op_ledger: Path) -> int:
    """Count the records that Kafka has acknowledged to any run in the folder."""
    return int(ds.dataset(files_below(op_ledger, "*.parquet")).count_rows())


def read_conservation(settings: Settings, op_ledger: Path) -> Conservation:
    """Count each side by itself: the op ledger, the tables' rows, and the batch ledger for what is in no table."""
    silver = count_batches(settings, "silver")
    return Conservation(
        acknowledged=count_acknowledged(op_ledger),
        bronze=_rows(settings, BRONZE),
        silver=_rows(settings, SILVER),
        # The copy that an earlier one has replaced turns into a duplicate.
        duplicates=silver["duplicate"] + silver["replaced"],
        dead_letters=_rows(settings, DLQ),
        tombstones=silver["tombstone"],
        late=int(_table(settings, SILVER, ["_is_late_arriving"]).filter(pc.field("_is_late_arriving")).num_rows),
        conflicts=silver["conflict"],
    )


def read_dead_letters(settings: Settings) -> list[tuple[str, int]]:
    """Return rule ids and how many dead letters name them, in the order of the ids."""
    flags = _table(settings, DLQ, ["_quality_flags"])["_quality_flags"].to_pylist()
    return sorted(Counter(rule for ids in flags for rule in ids or []).items())


def busiest_day(settings: Settings, now: datetime) -> date | None:
    """Return the day with the most events in Gold of those that may be closed at `now`."""
    table = _table(settings, GOLD_DAILY, ["day", "event_count"])
    grace = timedelta(hours=settings.reconcile.grace_hours)
    days = table.group_by("day").aggregate([("event_count", "sum")]).to_pylist()
    complete = [row for row in days if datetime.combine(row["day"], datetime.min.time(), UTC) + timedelta(days=1) + grace <= now]
    return max(complete, key=lambda row: (row["event_count_sum"], row["day"]))["day"] if complete else None


def read_bills(settings: Settings, day: date) -> list[Bill]:
    """Return the day's rows of Gold, most events first."""
    columns = [
        "day",
        "customer_id",
        "event_count",
        "error_count",
        "late_count",
        "request_bytes",
        "response_bytes",
        "billing_status",
    ]
    rows: list[dict[str, Any]] = _table(settings, GOLD_DAILY, columns).filter(pc.field("day") == pa.scalar(day)).to_pylist()
    bills = [
        Bill(
            row["customer_id"],
            row["event_count"],
            row["error_count"],
            row["late_count"],
            row["request_bytes"] + row["response_bytes"],
            row["billing_status"],
        )
        for row in rows
    ]
    return sorted(bills, key=lambda bill: (-bill.events, bill.customer))


def _rows(settings: Settings, name: TableName) -> int:
    return int(existing_table(name.path(settings)).count())


def _table(settings: Settings, name: TableName, columns: list[str]) -> pa.Table:
    return rows_dataset(existing_table(name.path(settings))).to_table(columns=columns)
