"""The peer's end: hourly and daily aggregates of the touched days, recomputed from Silver and merged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from benchmarks.peer_lake import Lake

BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)


def build_gold(connection: duckdb.DuckDBPyConnection, lake: Lake, days: Iterable[date]) -> tuple[int, int, int]:
    """Recompute the hours and days of `days` from Silver, merge both tables, return their numbers of rows and of events."""
    silver = DeltaTable(lake.path("silver"))
    wanted = sorted(days)
    if not wanted:
        return 0, 0, 0
    files = ", ".join(f"'{name}'" for name in silver.file_uris())
    listed = ", ".join(f"DATE '{day}'" for day in wanted)
    view = f"SELECT * FROM read_parquet([{files}]) WHERE _event_date IN ({listed})"  # noqa: S608
    connection.execute(f"CREATE OR REPLACE TEMP VIEW silver_days AS {view}")
    hourly = connection.sql(_HOURLY).to_arrow_table()
    daily = connection.sql(_DAILY, params={"version": silver.version()}).to_arrow_table()
    lake.merge("gold_hourly", _plain(hourly), ["hour", "customer_id", "endpoint"])
    lake.merge("gold_daily", _plain(daily), ["day", "customer_id"])
    return hourly.num_rows, daily.num_rows, pc.sum(hourly["event_count"]).as_py()


def _plain(table: pa.Table) -> pa.Table:
    """Sums of longs come as 128-bit integers; the tables hold longs."""
    fields = [pa.field(f.name, pa.int64()) if pa.types.is_decimal(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


def _buckets() -> str:
    low, columns = None, []
    for bound in BOUNDS:
        above = "" if low is None else f"response_time_ms > {low} AND "
        columns.append(f"count(*) FILTER ({above}response_time_ms <= {bound}) AS latency_le_{bound}")
        low = bound
    return ", ".join([*columns, f"count(*) FILTER (response_time_ms > {low}) AS latency_gt_{low}"])


_TOTALS = (
    "count(*) AS event_count, count(*) FILTER (status_code >= 400) AS error_count, sum(request_bytes)::BIGINT AS request_bytes,"
    " sum(response_bytes)::BIGINT AS response_bytes, count(*) FILTER (_is_late_arriving) AS late_count"
)
_HOURLY = f"""
SELECT date_trunc('hour', event_timestamp) AS hour, customer_id, endpoint, {_TOTALS},
  count(DISTINCT api_key_id) AS distinct_api_keys, {_buckets()}, now() AS _updated_at
FROM silver_days GROUP BY ALL
"""  # noqa: S608
_DAILY = f"""
SELECT _event_date AS day, customer_id, {_TOTALS}, count(DISTINCT endpoint) AS distinct_endpoints,
  'provisional' AS billing_status, $version::BIGINT AS silver_version, now() AS _updated_at
FROM silver_days GROUP BY ALL
"""  # noqa: S608
