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
from pyspark.sql import SparkSession

from lakehouse.cli import main
from lakehouse.sql_cli import StatementError, run_statement, show_csv, show_json, show_table
from tests.playbooks.commands import commands_of
from tests.playbooks.pages import all_pages

PROJECT = Path(__file__).resolve().parents[2]
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
    ],
)
def test_wrong_statement_is_one_sentence(session: SparkSession, statement: str, starts: str) -> None:
    with pytest.raises(StatementError) as raised:
        run_statement(session, statement, 100, show_csv)
    assert str(raised.value).startswith(starts)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 1


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
