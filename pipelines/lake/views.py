"""Names the lake's views: queries over its tables that a session knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.lake.tables import ADJUSTMENTS, GOLD_DAILY, Column, TableName


@dataclass(frozen=True)
class ViewDef:
    """A view `layer.name`: `query` has the tables that it reads as `{placeholders}`, by `reads`."""

    name: TableName
    comment: str
    columns: tuple[Column, ...]
    query: str
    reads: Mapping[str, TableName]

    @property
    def sql(self) -> str:
        """The query by the tables' names."""
        return self.query.format(**{placeholder: str(table) for placeholder, table in self.reads.items()})


_TOTALS = ("event_count", "error_count", "request_bytes", "response_bytes", "late_count")
_BILL = """
SELECT day, customer_id, sum(coalesce(event_count, 0)) AS event_count, sum(coalesce(error_count, 0)) AS error_count,
    sum(coalesce(request_bytes, 0)) AS request_bytes, sum(coalesce(response_bytes, 0)) AS response_bytes,
    sum(coalesce(late_count, 0)) AS late_count
FROM (
    SELECT *, max(is_issued) OVER (PARTITION BY day) AS has_issued
    FROM (
        SELECT day, customer_id, event_count, error_count, request_bytes, response_bytes, late_count, 1 AS is_issued
        FROM {daily} WHERE billing_status = 'final'
        UNION ALL
        SELECT day, customer_id, event_count, error_count, request_bytes, response_bytes, late_count, 0 FROM {adjustments}
    )
)
WHERE has_issued = 1 -- adjustments of a day that was closed after this query had read the first table are left out with the day
GROUP BY day, customer_id
"""

BILL = ViewDef(
    name=TableName("gold", "bill"),
    comment="What billing reads: what each customer owes for each closed day, adjustments included. A day is there whole or not "
    "at all: closing it is one commit to one of the two tables, and so is each booking of adjustments.",
    columns=(
        Column("day", "date", "A closed day, UTC."),
        Column("customer_id", "string", "Who is billed."),
        *(Column(name, "bigint", "As issued, and all adjustments since.") for name in _TOTALS),
    ),
    query=_BILL,
    reads={"daily": GOLD_DAILY, "adjustments": ADJUSTMENTS},
)
ALL_VIEWS = (BILL,)
