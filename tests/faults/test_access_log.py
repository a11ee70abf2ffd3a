"""A real access log through the whole path, counted a second time by DuckDB from the file itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import ProducePlan
from lakehouse.local.producer import produce_events
from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, SILVER, TableName
from tests.faults.conftest import LakeCase

ACCESS_LOG = PROJECT.parent / "shared" / "data" / "access.log.gz"

Day = tuple[date, int, int, int]


def _from_file(path: Path) -> tuple[int, int, list[Day]]:
    """Lines, lines that are no request, and for each day requests, errors and bytes: by regular expression, in SQL."""
    pattern = r'^\S+ \S+ \S+ \[([^\] ]+) \+0000\] "([A-Z]+) (\S+) HTTP/[0-9.]+" ([0-9]{3}) ([0-9]+|-) "[^"]*" "[^"]*"$'
    db = duckdb.connect()
    reader = "read_csv(?, header=false, columns={'line': 'VARCHAR'}, delim='\x01', quote='', escape='')"
    db.execute(f"CREATE TABLE lines AS SELECT line FROM {reader}", [str(path)])  # noqa: S608
    db.execute(
        f"""CREATE TABLE requests AS
        SELECT strptime(regexp_extract(line, '{pattern}', 1), '%d/%b/%Y:%H:%M:%S')::DATE AS day,
               regexp_extract(line, '{pattern}', 4)::INT AS status,
               coalesce(try_cast(regexp_extract(line, '{pattern}', 5) AS BIGINT), 0) AS bytes
        FROM lines WHERE regexp_matches(line, '{pattern}')"""  # noqa: S608
    )
    [(total,)] = db.execute("SELECT count(*) FROM lines").fetchall()
    days = db.execute(
        "SELECT day, count(*), count(*) FILTER (status >= 400), sum(bytes)::BIGINT FROM requests GROUP BY ALL ORDER BY day"
    ).fetchall()
    return total, total - sum(day[1] for day in days), days


@pytest.mark.skipif(not ACCESS_LOG.exists(), reason="the access log lies outside the project, in ../shared/data")
def test_access_log_gives_the_totals_that_the_file_has(spark: SparkSession, lake_case: Callable[[int], LakeCase]) -> None:
    case = lake_case(0)
    produce_events(case.settings, ProducePlan(access_log=ACCESS_LOG), case.folder / "op_ledger")

    run_to_end(spark, case.settings, list(STREAMS), threading.Event())

    def rows(name: TableName) -> int:
        return spark.read.format("delta").load(name.path(case.settings)).count()

    lines, unreadable, days = _from_file(ACCESS_LOG)
    gold = (
        duckdb.connect()
        .execute(
            "SELECT day, sum(event_count)::BIGINT, sum(error_count)::BIGINT, sum(response_bytes)::BIGINT "
            "FROM read_parquet(?) GROUP BY day ORDER BY day",
            [DeltaTable(GOLD_DAILY.path(case.settings)).file_uris()],
        )
        .fetchall()
    )
    assert rows(BRONZE) == lines
    assert rows(DLQ) == unreadable
    assert rows(SILVER) == lines - unreadable
    assert gold == days
    assert set(case.verdicts().values()) <= {"holds", "not checked"}
