"""The SQL prompt only reads, whatever is typed; with `--write` it asks and holds the lease of the tables that it writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from lakehouse.commands.sql import StatementError, run_statement
from lakehouse.operations.sql.plan import READING_OPTIONS, forbid_foreign_code, leases_for, parse, tables_written, what_it_writes
from lakehouse.operations.sql.values import show_csv
from lakehouse.operations.sql.write import NotConfirmedError, ReadOnlyError, Writer
from pipelines.lake.errors import LeaseHeldError
from pipelines.lake.lease.layers import lease_of, leases_held
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, KNOWN_GAPS, LEDGER, SILVER

S, D = "silver.api_usage_events", "gold.api_usage_daily"

READS = """
SELECT count(*) FROM {S}
select 1 -- a comment
/* a comment */ SELECT 1
(SELECT 1)
WITH x AS (SELECT event_id FROM {S}) SELECT * FROM x
WITH RECURSIVE r(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r
VALUES (1, 2), (3, 4)
TABLE {D}
FROM {D} SELECT day
FROM {D} |> WHERE event_count > 0 |> SELECT day
SELECT * FROM {S} VERSION AS OF 0
SELECT * FROM delta.`{lake}/silver/api_usage_events`
SELECT * FROM IDENTIFIER('{D}')
SELECT a.event_id FROM {S} a JOIN {S} b USING (event_id) WHERE a.event_id IN (SELECT event_id FROM {S}) ORDER BY 1 LIMIT 2
SELECT customer_id, count(*) FROM {S} GROUP BY ROLLUP (customer_id) HAVING count(*) > 0
SELECT DISTINCT day FROM {D} UNION SELECT DATE'2026-01-01' EXCEPT SELECT DATE'2026-01-02' INTERSECT SELECT DATE'2026-01-03'
SELECT *, row_number() OVER w FROM {D} WINDOW w AS (PARTITION BY day ORDER BY customer_id)
SELECT * FROM {D}, LATERAL (SELECT 1)
SELECT * FROM {S} LATERAL VIEW explode(array(1, 2)) AS e
SELECT * FROM (SELECT day, event_count FROM {D}) PIVOT (sum(event_count) FOR day IN (DATE'2026-01-28'))
SELECT * FROM (SELECT event_count, late_count FROM {D}) UNPIVOT (n FOR what IN (event_count, late_count))
SELECT * FROM {D} TABLESAMPLE (50 PERCENT)
SELECT /*+ BROADCAST(a) */ a.day FROM {D} a JOIN {D} b ON a.day = b.day
SELECT transform(array(1), x -> x + 1), IDENTIFIER('upper')('a')
SELECT 'DROP TABLE {S}', 'INSERT INTO {S} VALUES (1)' AS `delete`
SHOW TABLES IN silver
SHOW DATABASES
SHOW COLUMNS IN {S}
SHOW TBLPROPERTIES {S}
SHOW FUNCTIONS LIKE 'up*'
SHOW TABLE EXTENDED IN silver LIKE '*'
DESCRIBE {S}
DESCRIBE EXTENDED {S}
DESCRIBE HISTORY {S}
DESCRIBE DETAIL {S}
DESCRIBE FUNCTION upper
DESCRIBE QUERY SELECT 1
EXPLAIN SELECT * FROM {S}
EXPLAIN FORMATTED WITH x AS (SELECT 1) SELECT * FROM x
SET spark.sql.ansi.enabled
SET spark.sql.ansi.enabled = true
SET TIME ZONE 'UTC'
USE gold
SELECT count(*) FROM api_usage_daily
USE default
CREATE OR REPLACE TEMP VIEW v AS SELECT * FROM {S}
SELECT count(*) FROM v
"""
WRITES = """
INSERT INTO {D} SELECT * FROM {D}
insert into table delta.`{lake}/gold/api_usage_daily` select * from {D}
INSERT OVERWRITE {D} SELECT * FROM {D} LIMIT 0
INSERT INTO {D} REPLACE WHERE customer_id = 'x' SELECT * FROM {D} LIMIT 0
INSERT OVERWRITE DIRECTORY '{out}' USING parquet SELECT 1
INSERT INTO IDENTIFIER('{D}') SELECT * FROM {D}
WITH x AS (SELECT * FROM {D}) INSERT INTO {D} SELECT * FROM x
FROM {D} INSERT INTO {D} SELECT * INSERT INTO {D} SELECT *
/* SELECT */ UPDATE {D} SET event_count = 0
WITH x AS (SELECT 1) UPDATE {D} SET event_count = 0
DELETE FROM {S}
DELETE FROM delta.`{lake}/silver/api_usage_events` WHERE event_id = 'e1'
MERGE INTO {D} a USING {D} b ON a.day = b.day WHEN MATCHED THEN DELETE
TRUNCATE TABLE {S}
DROP TABLE {S}
DROP TABLE IF EXISTS IDENTIFIER('{S}')
DROP DATABASE silver CASCADE
CREATE DATABASE other
CREATE TABLE delta.`{out}` (a INT) USING delta
CREATE TABLE other_table USING delta LOCATION '{out}' AS SELECT 1 AS a
CREATE OR REPLACE TABLE {S} USING delta AS SELECT 1 AS a
CREATE TABLE delta.`{out}` SHALLOW CLONE {S}
CREATE TABLE other_table LIKE {S} USING delta LOCATION '{out}'
CREATE VIEW silver.v AS SELECT 1
CREATE GLOBAL TEMP VIEW v AS SELECT 1
CREATE TEMP VIEW w USING parquet OPTIONS (path '{out}')
CREATE TEMPORARY FUNCTION f(x INT) RETURNS INT RETURN x + 1
CREATE FUNCTION f AS 'java.lang.String'
DECLARE VARIABLE x INT DEFAULT 1
ALTER TABLE {S} SET TBLPROPERTIES ('delta.appendOnly' = 'true')
ALTER TABLE {S} ADD COLUMN other INT
ALTER TABLE {S} DROP FEATURE deletionVectors
ALTER TABLE {S} RENAME TO silver.other
ALTER TABLE {S} ADD CONSTRAINT c CHECK (status_code > 0)
COMMENT ON TABLE {S} IS 'mine'
ANALYZE TABLE {S} COMPUTE STATISTICS
OPTIMIZE {S}
OPTIMIZE delta.`{lake}/silver/api_usage_events`
VACUUM {S} RETAIN 0 HOURS
VACUUM '{lake}/silver/api_usage_events'
RESTORE TABLE {S} TO VERSION AS OF 0
REORG TABLE {S} APPLY (PURGE)
CONVERT TO DELTA parquet.`{lake}/silver/api_usage_events`
GENERATE symlink_format_manifest FOR TABLE {S}
MSCK REPAIR TABLE {S}
LOAD DATA INPATH '{out}' INTO TABLE {S}
EXPLAIN INSERT INTO {D} SELECT * FROM {D}
EXPLAIN ANALYZE TABLE {S} COMPUTE STATISTICS
EXECUTE IMMEDIATE 'DELETE FROM {S}'
BEGIN DELETE FROM {S}; END
BEGIN SELECT 1; END
CALL system.f()
ADD JAR '{out}/x.jar'
ADD FILE '{out}'
CACHE TABLE {S}
CLEAR CACHE
REFRESH TABLE {S}
SET spark.databricks.delta.retentionDurationCheck.enabled = false
SET spark.sql.sources.partitionOverwriteMode = dynamic
SET spark.sql.parquet.outputTimestampType = INT96
RESET
SELECT TRANSFORM (event_id) USING 'touch {out}' AS (x) FROM {S}
"""
NOT_UNDERSTOOD = """
COPY INTO {S} FROM '{out}' FILEFORMAT = CSV
FSCK REPAIR TABLE {S}
!touch {out}
SELECT * FROM (DELETE FROM {S})
SELECT 1; DELETE FROM {S}
SELECT reflect('java.lang.System', 'setProperty', 'a', 'b')
SELECT system.builtin.java_method('java.lang.System', 'setProperty', 'a', 'b')
SELECT IDENTIFIER('try_reflect')('java.lang.System', 'setProperty', 'a', 'b')
"""


@pytest.fixture
def reader(hand_lake: Any, session: SparkSession, tables: Callable[[Any], None]) -> Iterator[SparkSession]:
    """A session of its own on a small lake, as the prompt has it."""
    hand_lake.write()
    tables(hand_lake)
    own = session.newSession()
    forbid_foreign_code(own)
    yield own
    session.sql("USE default")


def _sql(text: str, lake: Any) -> str:
    return text.format(S=S, D=D, lake=lake.settings.lake.root, out=lake.folder / "out")


def _lines(text: str, lake: Any) -> list[str]:
    return [_sql(line, lake) for line in text.strip().splitlines()]


def _state(lake: Any, spark: SparkSession) -> tuple[object, ...]:
    files = {
        path: (path.stat().st_mtime_ns, path.stat().st_size, path.stat().st_ino)
        for path in sorted(Path(lake.folder).rglob("*"))
        if path.is_file()
    }
    named = [row for layer in ("silver", "gold") for row in spark.sql(f"SHOW TABLES IN {layer}").collect() if row.namespace]
    options = {row.key: row.value for row in spark.sql("SET").collect() if row.key.lower() not in READING_OPTIONS}
    return files, sorted(os.listdir(lake.folder)), named, options


def test_no_statement_changes_anything(hand_lake: Any, reader: SparkSession, capsys: Any) -> None:
    before = _state(hand_lake, reader)
    reads, writes, wrong = (_lines(text, hand_lake) for text in (READS, WRITES, NOT_UNDERSTOOD))
    assert len(reads) + len(writes) > 100
    for statement in reads:
        run_statement(reader, statement, 5, show_csv)
    for statement in writes:
        with pytest.raises(ReadOnlyError, match="this prompt only reads: nothing was done") as refused:
            run_statement(reader, statement, 5, show_csv)
        assert refused.value.exit_code == 2, statement
    for statement in wrong:
        with pytest.raises(StatementError):
            run_statement(reader, statement, 5, show_csv)
    capsys.readouterr()
    after = _state(hand_lake, reader)
    for seen, expected in zip(after, before, strict=True):
        assert seen == expected


def test_refusal_names_what_was_asked_for(hand_lake: Any, reader: SparkSession) -> None:
    said = {
        "DELETE FROM {S}": "DELETE FROM TABLE",
        "WITH x AS (SELECT 1) INSERT INTO {S} SELECT * FROM x": "INSERT INTO",
        "OPTIMIZE {S}": "OPTIMIZE TABLE",
        "SET spark.sql.sources.default = x": "SET spark.sql.sources.default",
        "BEGIN SELECT 1; END": "COMPOUND BODY",
    }
    assert {text: what_it_writes(parse(reader, _sql(text, hand_lake))) for text in said} == said


def test_tables_of_a_write_decide_the_leases(hand_lake: Any, reader: SparkSession) -> None:
    written = {
        "UPDATE {D} SET event_count = (SELECT count(*) FROM {S})": [GOLD_DAILY],
        "INSERT INTO {D} SELECT * FROM {S}": [GOLD_DAILY],
        "WITH x AS (SELECT * FROM {S}) INSERT INTO {D} SELECT * FROM x": [GOLD_DAILY],
        "FROM {S} INSERT INTO {D} SELECT * INSERT INTO {S} SELECT *": [GOLD_DAILY, SILVER],
        "MERGE INTO {S} a USING {D} b ON true WHEN MATCHED THEN DELETE": [SILVER],
        "DELETE FROM delta.`{lake}/bronze/../bronze/api_usage_events_dlq/`": [DLQ],
        "DELETE FROM spark_catalog.{S}": [SILVER],
        "OPTIMIZE bronze.api_usage_events": [BRONZE],
        "ALTER TABLE ops.batch_ledger SET TBLPROPERTIES ('a' = 'b')": [LEDGER],
        "DROP TABLE {S}": [SILVER],
        "DELETE FROM delta.`/elsewhere`": [],
        "EXECUTE IMMEDIATE 'x'": [],
        "CREATE DATABASE x": [],
    }
    found = {text: tables_written(reader, hand_lake.settings, parse(reader, _sql(text, hand_lake))) for text in written}
    assert found == written
    assert [leases_for(tables) for tables in ([BRONZE], [DLQ], [SILVER, DLQ], [GOLD_DAILY, SILVER])] == [
        ["bronze"],
        ["silver"],
        ["silver"],
        ["silver", "gold"],
    ]
    # Every layer's batches write these, and of a statement that names no table nobody knows.
    assert [leases_for(tables) for tables in ([LEDGER], [KNOWN_GAPS, SILVER], [])] == [["bronze", "silver", "gold"]] * 3


def test_write_asks_for_the_tables_name_and_holds_its_lease(hand_lake: Any, reader: SparkSession, capsys: Any) -> None:
    asked: list[str] = []
    answers = ["yes", S]

    def ask(question: str) -> str:
        asked.append(question)
        return answers.pop(0)

    writer = Writer(hand_lake.settings, ask)
    statement = _sql("DELETE FROM {S} WHERE event_id = 'e1'", hand_lake)
    with pytest.raises(NotConfirmedError, match=f"nothing was done; type `{S}`"):
        run_statement(reader, statement, 5, show_csv, writer)
    assert hand_lake.delta(SILVER).version() == 0
    run_statement(reader, statement, 5, show_csv, writer)
    assert capsys.readouterr().out.splitlines() == ["num_affected_rows", "1"]
    assert hand_lake.delta(SILVER).version() == 1
    asked_for = "DELETE FROM TABLE writes silver.api_usage_events, outside of the jobs; the usual way for Silver is "
    assert asked[0].startswith(asked_for)
    # A query is not asked about.
    run_statement(reader, _sql("SELECT count(*) AS n FROM {S}", hand_lake), 5, show_csv, writer)
    assert capsys.readouterr().out == "n\n3\n"


def test_write_waits_for_the_job_that_holds_the_lease(hand_lake: Any, reader: SparkSession) -> None:
    leases = hand_lake.settings.leases.model_copy(update={"wait_seconds": 0.2})
    settings = hand_lake.settings.model_copy(update={"leases": leases})
    with lease_of(settings, "silver", job="silver", run="r1").hold():
        with pytest.raises(LeaseHeldError, match="silver"):
            run_statement(reader, _sql("DELETE FROM {S}", hand_lake), 5, show_csv, Writer(settings, None))
        assert hand_lake.delta(SILVER).version() == 0
        with Writer(settings, None).hold([GOLD_DAILY]):
            assert set(leases_held(settings)) == {"gold", "silver"}
