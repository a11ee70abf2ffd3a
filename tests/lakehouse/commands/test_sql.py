"""`lakehouse sql` runs statements on the tables by name and answers a wrong one with a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from lakehouse.commands.cli import main
from lakehouse.commands.sql import StatementError, run_statement
from lakehouse.operations.sql.values import show_auto, show_csv, show_json, show_table, show_vertical
from pipelines.gold.schema import CANDIDATES_TABLE
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import CANDIDATES
from pipelines.runtime.delta import ensure_table
from tests.playbooks.commands import commands_of
from tests.playbooks.pages import all_pages

Capture = pytest.CaptureFixture[str]


def test_tables_are_known_by_name(hand_lake: Any, session: SparkSession, tables: Callable[[Any], None], capsys: Capture) -> None:
    hand_lake.write()
    tables(hand_lake)
    run_statement(session, "SELECT count(*) AS n FROM silver.api_usage_events;", 100, show_csv)
    assert capsys.readouterr().out == "n\n4\n"


def test_statements_of_the_playbooks_fit_the_tables(
    hand_lake: Any, session: SparkSession, tables: Callable[[Any], None], capsys: Capture
) -> None:
    hand_lake.write()
    ensure_table(session, CANDIDATES_TABLE, hand_lake.path(CANDIDATES))
    tables(hand_lake)
    ran = 0
    for page in all_pages():
        for words in (words for block in page.blocks for words in commands_of(block.code)):
            if words[:2] == ["lakehouse", "sql"]:
                statement = Template(words[2]).substitute({**page.variables, "DAY": "2026-01-28"})
                run_statement(session, statement, 100, show_csv)
                assert capsys.readouterr().out, statement
                ran += 1
    assert ran >= 10


def test_values_survive_in_each_format(session: SparkSession, capsys: Capture) -> None:
    bare = "SELECT 1 AS n, CAST(NULL AS STRING) AS nothing, 'a,\"b' AS text"
    statement = f"{bare}, X'ff00' AS bytes, DATE'2026-01-28' AS day, array(1, 2) AS list"
    run_statement(session, statement, 100, show_csv)
    assert capsys.readouterr().out.splitlines()[1] == '1,,"a,""b",0xff00,2026-01-28,"[1, 2]"'
    run_statement(session, statement, 100, show_json)
    assert json.loads(capsys.readouterr().out) == [
        {"n": 1, "nothing": None, "text": 'a,"b', "bytes": "0xff00", "day": "2026-01-28", "list": [1, 2]}
    ]
    run_statement(session, statement, 100, show_table)
    shown = capsys.readouterr().out
    assert "NULL" in shown
    assert "1 rows" in shown


LATER = "timestamp'9999-12-31 23:59:59.5' + INTERVAL 300 DAYS"
VALUES = {
    # Spark's value: how CSV shows it, how JSON does.
    "timestamp'2026-01-28 10:00:00'": ("2026-01-28 10:00:00", "2026-01-28 10:00:00"),
    "timestamp'2026-01-28 10:00:00.5'": ("2026-01-28 10:00:00.500000", "2026-01-28 10:00:00.500000"),
    "timestamp'0226-01-28 10:00:00'": ("0226-01-28 10:00:00", "0226-01-28 10:00:00"),
    LATER: ("+10000-10-26 23:59:59.500000", "+10000-10-26 23:59:59.500000"),
    "timestamp_ntz'2026-01-28 10:00:00.000001'": ("2026-01-28 10:00:00.000001", "2026-01-28 10:00:00.000001"),
    "date'9999-12-31' + 1": ("+10000-01-01", "+10000-01-01"),
    "date'-0044-03-15'": ("-0044-03-15", "-0044-03-15"),
    f"array({LATER})": ("['+10000-10-26 23:59:59.5']", ["+10000-10-26 23:59:59.5"]),
    f"named_struct('t', {LATER}, 'n', 1)": ("Row(t='+10000-10-26 23:59:59.5', n=1)", {"t": "+10000-10-26 23:59:59.5", "n": 1}),
    "map(date'2026-01-28', X'ff')": ("{'2026-01-28': b'\\xff'}", {"2026-01-28": "0xff"}),
    "map(named_struct('a', 1), 2)": ("{Row(a=1): 2}", {"Row(a=1)": 2}),
    "INTERVAL '1-2' YEAR TO MONTH": ("INTERVAL '1-2' YEAR TO MONTH", "INTERVAL '1-2' YEAR TO MONTH"),
    "INTERVAL '1 02:03:04' DAY TO SECOND": ("INTERVAL '1 02:03:04' DAY TO SECOND", "INTERVAL '1 02:03:04' DAY TO SECOND"),
    "make_interval(1, 2, 3)": ("1 years 2 months 21 days", "1 years 2 months 21 days"),
    "parse_json('{\"a\":[1,null]}')": ('{"a":[1,null]}', '{"a":[1,null]}'),
    "double('NaN')": ("NaN", "NaN"),
    "-double('inf')": ("-Infinity", "-Infinity"),
    "CAST(0 AS DECIMAL(38,18))": ("0.000000000000000000", "0.000000000000000000"),
    "CAST(12345678901234567890 AS DECIMAL(38,0))": ("12345678901234567890", "12345678901234567890"),
    "9223372036854775807": ("9223372036854775807", 9223372036854775807),
    "true": ("True", True),
    "''": ("", ""),
    "NULL": ("", None),
}


def test_whatever_a_table_can_hold_is_shown(session: SparkSession, capsys: Capture) -> None:
    import csv  # noqa: PLC0415

    statement = "SELECT " + ", ".join(f"{value} AS c{at}" for at, value in enumerate(VALUES))
    run_statement(session, statement, 100, show_csv)
    (_, shown) = csv.reader(capsys.readouterr().out.splitlines())
    assert dict(zip(VALUES, shown, strict=True)) == {value: expected for value, (expected, _) in VALUES.items()}
    run_statement(session, statement, 100, show_json)
    (row,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert dict(zip(VALUES, row.values(), strict=True)) == {value: expected for value, (_, expected) in VALUES.items()}
    for show in (show_table, show_vertical, show_auto):
        run_statement(session, statement, 100, show)
        assert "INTERVAL" in capsys.readouterr().out


def test_columns_of_one_name_are_all_shown(session: SparkSession, capsys: Capture) -> None:
    run_statement(session, "SELECT 1 AS a, 2 AS a, 3 AS b, 4 AS a", 100, show_json)
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "a_2": 2, "b": 3, "a_3": 4}]


def test_rows_that_are_too_wide_for_the_terminal_are_shown_one_value_a_line(capsys: Capture, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    columns = ["event_id", "_raw_value", "größe"]
    show_auto(columns, [Row(a="e1", b=b"x" * 30, c=None)], False)
    assert "┃ _raw_value" in capsys.readouterr().out
    show_auto(columns, [Row(a="e1", b=b"x" * 90, c=None), Row(a="e2", b=b"two\nlines \x1b[31m", c=1.5)], True)
    assert capsys.readouterr().out.splitlines() == [
        "-- row 1 -------------",
        "event_id   | e1",
        f"_raw_value | {'x' * 90}",
        "größe      | NULL",
        "-- row 2 -------------",
        "event_id   | e2",
        "_raw_value | two",
        # A record's value does not steer the terminal.
        "           : lines \\x1b[31m",
        "größe      | 1.5",
        "the first 2 rows; --limit shows more",
    ]


def test_rows_beyond_the_limit_are_left_out_and_said(session: SparkSession, capsys: Capture) -> None:
    run_statement(session, "SELECT id FROM range(10)", 3, show_csv)
    captured = capsys.readouterr()
    assert captured.out == "id\n0\n1\n2\n"
    assert "--limit" in captured.err


@pytest.mark.parametrize(
    ("statement", "starts"),
    [
        ("SELEC 1", "[PARSE_SYNTAX_ERROR] Syntax error"),
        ("SELECT * FROM no_such_table", "[TABLE_OR_VIEW_NOT_FOUND] The table or view `no_such_table` cannot be found."),
        ("SELECT CAST('x' AS INT)", "[CAST_INVALID_INPUT]"),
        ("SELECT raise_error('stop') FROM range(3)", "[USER_RAISED_EXCEPTION] stop"),
        ("SELECT 1 / (id - 1) FROM range(3)", "[DIVIDE_BY_ZERO] Division by zero."),
        ("SELECT sum(id) FROM (SELECT 9223372036854775807 AS id UNION ALL SELECT 1)", "[ARITHMETIC_OVERFLOW]"),
        ("LOCK TABLE a", "[INVALID_STATEMENT_OR_CLAUSE] The statement or clause: LOCK TABLE is not valid."),
        ("SELECT 1; DELETE FROM silver.api_usage_events", "[PARSE_SYNTAX_ERROR] Syntax error"),
    ],
)
def test_wrong_statement_is_one_sentence(session: SparkSession, statement: str, starts: str, capfd: Any) -> None:
    with pytest.raises(StatementError) as raised:
        run_statement(session, statement, 100, show_csv)
    assert str(raised.value).startswith(starts)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 1
    # Neither PySpark's own log, nor Spark's.
    assert capfd.readouterr() == ("", "")


def _config(lake: Any) -> str:
    path: Path = lake.folder / "conf.yaml"
    tree = {"lake": {"root": lake.settings.lake.root, "state_dir": lake.settings.lake.state_dir}}
    path.write_text(json.dumps({**tree, "schemas_dir": lake.settings.schemas_dir}))
    return str(path)


def test_statements_from_a_pipe_span_lines_and_the_first_wrong_one_ends_it(hand_lake: Any) -> None:
    hand_lake.write()
    typed = "SELECT min(event_timestamp) AS first,\n count(*) AS n\nFROM silver.api_usage_events;\n\nSELECT no_such;\nSELECT 3"
    command = [sys.executable, "-m", "lakehouse", "sql", "--csv", "--config", _config(hand_lake)]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), "TZ": "America/New_York"}
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, timeout=180, cwd=hand_lake.folder, env=environ, check=False
    )
    assert done.returncode == 1
    # UTC, whatever the zone of the machine.
    assert done.stdout == "first,n\n2026-01-27 10:00:00,4\n"
    assert "[UNRESOLVED_COLUMN" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "\tat " not in done.stderr


def test_no_lake_is_one_sentence_before_spark_starts(hand_lake: Any, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sql", "SELECT 1", "--config", _config(hand_lake)])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("lakehouse: There is no lake at")
    assert len(said.splitlines()) == 1
