"""Checks I5: Gold equals what DuckDB computes from Silver.

Bounds and sums are stated a second time, and the ledger's JSON is read a second time, on purpose: see `batches.py`.
"""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

import json
from dataclasses import dataclass

from deltalake.exceptions import DeltaError

from lakehouse.proof.lake import Lake
from lakehouse.proof.result import Finding, Invariant
from pipelines.lake.errors import LakehouseError
from pipelines.lake.tables import ADJUSTMENTS, GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER, TableName

_BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
_HOUR = 3_600_000_000
_MOST_VERSIONS = 20
"""Old Silver versions that are read for final days; each costs a scan."""

_SUMS = {
    "event_count": "count(*)",
    "error_count": "count(*) FILTER (WHERE status_code >= 400)",
    "request_bytes": "sum(request_bytes)",
    "response_bytes": "sum(response_bytes)",
    "late_count": "count(*) FILTER (WHERE late)",
    "distinct_api_keys": "count(DISTINCT api_key_id)",
}


def _buckets() -> dict[str, str]:
    buckets = {}
    for below, bound in zip((None, *_BOUNDS), _BOUNDS, strict=False):
        above = "" if below is None else f" AND response_time_ms > {below}"
        buckets[f"latency_le_{bound}"] = f"count(*) FILTER (WHERE response_time_ms <= {bound}{above})"
    buckets[f"latency_gt_{_BOUNDS[-1]}"] = f"count(*) FILTER (WHERE response_time_ms > {_BOUNDS[-1]})"
    return buckets


@dataclass(frozen=True)
class _Grain:
    """A Gold table: its keys (`start` is the hour or day, in microseconds since the epoch) and measures over Silver."""

    name: str
    table: TableName
    start: str
    unit: int
    keys: tuple[str, ...]
    measures: dict[str, str]

    @property
    def on(self) -> str:
        return ", ".join(("start", *self.keys))

    def recompute(self, source: str) -> str:
        """SQL of the table's content from `source`, a copy of Silver."""
        columns = ", ".join(f"{sql} AS {name}" for name, sql in self.measures.items())
        # Floor in integers: before 1970 a remainder is negative, and a double loses microseconds far from it.
        floor = f"ets - ((ets % {self.unit}) + {self.unit}) % {self.unit}"
        return f"SELECT {floor} AS start, {', '.join(self.keys)}, {columns} FROM {source} GROUP BY ALL"


_BY_KEY = _Grain(
    "by_key",
    GOLD_BY_KEY,
    "epoch_us(hour)",
    _HOUR,
    ("customer_id", "endpoint", "api_key_id"),
    {name: sql for name, sql in (_SUMS | _buckets()).items() if name != "distinct_api_keys"},
)
_HOURLY = _Grain("hourly", GOLD_HOURLY, "epoch_us(hour)", _HOUR, ("customer_id", "endpoint"), _SUMS | _buckets())
_DAILY = _Grain(
    "daily",
    GOLD_DAILY,
    "epoch_us(day::TIMESTAMP)",
    24 * _HOUR,
    ("customer_id",),
    {name: sql for name, sql in _SUMS.items() if name != "distinct_api_keys"}
    | {"distinct_endpoints": "count(DISTINCT endpoint)"},
)
_ADDED = tuple(name for name in _DAILY.measures if name != "distinct_endpoints")
"""Measures of a bill that adjustments add to."""
_SHOWN = "strftime(make_timestamp(start), '%Y-%m-%dT%H:%MZ') AS start"


def check_gold(lake: Lake) -> Invariant:
    """I5: the tables of Gold have the rows, and only the rows, that Silver gives.

    A closed day is an issued bill: with its adjustments it equals Silver; where it does not yet, it is compared with the
    Silver version that it stands for.
    """
    result = Invariant("I5", "Gold equals a recompute from Silver, both ways")
    grains = [grain for grain in (_BY_KEY, _HOURLY, _DAILY) if grain.table in lake.tables and not _is_unbuilt(lake, grain)]
    if not grains:
        result.skipped = "there are no Gold tables"
        return result
    for grain in grains:
        source = f"gold_{grain.name}"
        lake.db.run(f"CREATE TEMP TABLE found_{grain.name} AS SELECT {grain.start} AS start, * FROM {source}")
        lake.db.run(f"CREATE TEMP TABLE expected_{grain.name} AS {grain.recompute('silver')}")
        copies = f"SELECT {_SHOWN}, count(*) AS copies FROM found_{grain.name} GROUP BY {grain.on} HAVING count(*) > 1"
        result.expect_none(lake.db, f"{grain.name} key in several rows", copies)
        if grain is _DAILY:
            _add_adjustments(lake, result)
            _expect_issued_bills(lake, result)
        _compare(lake, result, grain)
    if result.findings:
        _note_lag(lake, result)
    return result


def _is_unbuilt(lake: Lake, grain: _Grain) -> bool:
    """Whether a start of Gold has made the table beside older ones, and no batch has come since, which builds it whole."""
    return grain is _BY_KEY and lake.tables[grain.table].version() == 0


def _compare(lake: Lake, result: Invariant, grain: _Grain) -> None:
    found, expected, on = f"found_{grain.name}", f"expected_{grain.name}", grain.on
    db, what = lake.db, grain.name
    result.count(db, f"{what} rows", f"SELECT count(*) FROM {found}")
    missing = f"SELECT {_SHOWN}, event_count FROM {expected} ANTI JOIN {found} USING ({on})"
    result.expect_none(db, f"{what} row of Silver missing in Gold", missing)
    extra = f"SELECT {_SHOWN}, event_count FROM {found} ANTI JOIN {expected} USING ({on})"
    result.expect_none(db, f"{what} row in Gold that Silver does not give", extra)
    tests = ", ".join(
        f"CASE WHEN f.{name} IS DISTINCT FROM e.{name} "
        f"THEN '{name} ' || coalesce(f.{name}::VARCHAR, 'NULL') || ' for ' || coalesce(e.{name}::VARCHAR, 'NULL') END"
        for name in grain.measures
    )
    differs = f"""SELECT * FROM (SELECT {_SHOWN}, concat_ws(', ', {tests}) AS differs
        FROM {found} f JOIN {expected} e USING ({on})) WHERE differs <> ''"""
    result.expect_none(db, f"{what} row differs from Silver", differs)


def _add_adjustments(lake: Lake, result: Invariant) -> None:
    """Put the bills with their adjustments in the place of the closed days' rows, and note which version they stand for."""
    db, on = lake.db, _DAILY.on
    day = "epoch_us(day::TIMESTAMP) AS start"
    table = (
        "billing_adjustments" if ADJUSTMENTS in lake.tables else "(SELECT *, 0 AS silver_version_to FROM gold_daily WHERE false)"
    )
    sums = ", ".join(f"sum({name}) AS {name}" for name in _ADDED)
    db.run(f"""CREATE OR REPLACE TEMP TABLE adjusted AS
        SELECT {day}, customer_id, {sums}, max(silver_version_to) AS silver_version FROM {table} GROUP BY ALL""")
    result.count(db, "adjusted bills", "SELECT count(*) FROM adjusted")
    is_open = "SELECT start FROM found_daily GROUP BY start HAVING NOT bool_or(billing_status = 'final')"
    result.expect_none(
        db,
        "adjustment of a day that is not closed",
        f"SELECT {_SHOWN} FROM (SELECT DISTINCT start FROM adjusted) SEMI JOIN ({is_open}) USING (start)",
    )
    added = ", ".join(f"coalesce(f.{name}, 0) + coalesce(a.{name}, 0) AS {name}" for name in _ADDED)
    db.run(f"""CREATE OR REPLACE TEMP TABLE found_daily AS
        SELECT {on}, {added}, f.distinct_endpoints, coalesce(f.billing_status, 'final') AS billing_status,
            greatest(f.silver_version, a.silver_version) AS silver_version, a.silver_version IS NOT NULL AS is_adjusted
        FROM found_daily f FULL JOIN adjusted a USING ({on})""")
    db.run("""CREATE OR REPLACE TEMP TABLE closed AS
        SELECT start, max(silver_version) AS silver_version FROM found_daily WHERE billing_status = 'final' GROUP BY ALL""")
    nothing = " AND ".join(f"{name} = 0" for name in _ADDED)
    db.run(f"DELETE FROM found_daily WHERE is_adjusted AND {nothing}")


def _expect_issued_bills(lake: Lake, result: Invariant) -> None:
    """Expect of closed days that Silver has moved on from what the Silver version gives that the bills stand for."""
    db, on = lake.db, _DAILY.on
    _expect_no_distinct_counts(lake)
    same = " AND ".join(f"f.{name} IS NOT DISTINCT FROM e.{name}" for name in _DAILY.measures)
    db.run(f"""CREATE OR REPLACE TEMP TABLE bills AS
        SELECT start, closed.silver_version FROM found_daily f FULL JOIN expected_daily e USING ({on}) JOIN closed USING (start)
        GROUP BY start, closed.silver_version HAVING NOT bool_and({same})""")
    versions = [row[0] for row in db.rows("SELECT DISTINCT silver_version FROM bills ORDER BY ALL")]
    if len(versions) > _MOST_VERSIONS:
        problem = f"Silver versions of closed days that differ from Silver now; too many (over {_MOST_VERSIONS}) to read again"
        result.findings.append(Finding(problem, len(versions)))
        return
    for version in versions:
        _expect_bills_of(lake, result, version)
    _expect_no_distinct_counts(lake)


def _expect_no_distinct_counts(lake: Lake) -> None:
    """Take adjusted bills' distinct counts as they are: they are of the closing, and deltas of them cannot be added."""
    same = " AND ".join(f"f.{name} = e.{name}" for name in ("start", *_DAILY.keys))
    lake.db.run(f"""UPDATE expected_daily e SET distinct_endpoints = f.distinct_endpoints
        FROM found_daily f WHERE {same} AND f.is_adjusted""")


def _expect_bills_of(lake: Lake, result: Invariant, version: int) -> None:
    db = lake.db
    columns = (
        "epoch_us(event_timestamp) AS ets, _is_late_arriving AS late, customer_id, endpoint, api_key_id, "
        "status_code, request_bytes, response_bytes"
    )
    mine = f"SELECT start FROM bills WHERE silver_version = {version}"
    changed = db.number(f"SELECT count(*) FROM ({mine})")
    db.run(f"DELETE FROM expected_daily WHERE start IN ({mine})")
    try:
        lake.copy(SILVER, "silver_then", columns, version=version)
    except (DeltaError, LakehouseError):
        db.run(f"DELETE FROM found_daily WHERE start IN ({mine})")
        result.skipped = (
            f"{changed} closed days differ from Silver now, and its version {version}, which their bills stand for, cannot be "
            "read any more; run the daily batch for these days, which adds adjustments"
        )
        return
    then = _DAILY.recompute("silver_then")
    db.run(f"INSERT INTO expected_daily BY NAME SELECT * FROM ({then}) SEMI JOIN ({mine}) USING (start)")
    result.notes.append(
        f"{changed} closed days changed in Silver after its version {version}: compared with that version; the daily batch "
        "will add adjustments"
    )


def _note_lag(lake: Lake, result: Invariant) -> None:
    if LEDGER not in lake.tables:
        return
    rows = lake.db.rows("SELECT offsets FROM batch_ledger WHERE job = 'gold'")
    done = max((json.loads(offsets).get("silver_version", [0, -1])[1] for (offsets,) in rows if offsets), default=None)
    now = lake.tables[SILVER].version()
    if done is not None and done < now:
        result.notes.append(f"Gold has processed Silver up to version {done} of {now}; run again when it has caught up")
