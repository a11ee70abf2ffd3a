"""`lakehouse sql`: a SQL prompt on the lake's tables, or one statement."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.common.errors import LakehouseError

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

SHOWN = 100
"""Rows shown unless `--limit` says otherwise."""

Show = Callable[[list[str], "list[Row]", bool], None]
"""Prints columns and rows; the flag says that there were more."""

_LEAVE = ("exit", "quit", "\\q")


class StatementError(LakehouseError):
    """Raised when Spark refuses a statement or fails at it."""


def sql(
    statement: Annotated[str | None, typer.Argument(help="One statement; without it a prompt opens.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of objects.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to print.")] = SHOWN,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Run SQL on the tables by name (`silver.api_usage_events`); a wrong statement ends with its reason and exit code 1."""
    from rich.console import Console  # noqa: PLC0415 - keeps `--help` fast

    from lakehouse.sql_session import open_tables  # noqa: PLC0415
    from pipelines.common.settings import process_settings  # noqa: PLC0415

    if as_csv and as_json:
        msg = "--csv and --json exclude each other; give one."
        raise typer.BadParameter(msg)
    settings = process_settings(config)
    show = show_csv if as_csv else show_json if as_json else show_table
    with Console(stderr=True).status("starting Spark"):
        spark = open_tables(settings, "sql")
    if statement is not None:
        run_statement(spark, statement, limit, show)
    else:
        prompt(spark, limit, show, Path(settings.lake.state_dir) / "sql_history")


def run_statement(spark: SparkSession, statement: str, limit: int, show: Show) -> None:
    """Run `statement` and show at most `limit` rows; raises StatementError with the first sentence of Spark's reason."""
    from py4j.protocol import Py4JJavaError  # noqa: PLC0415
    from pyspark.errors import PySparkException  # noqa: PLC0415

    from lakehouse.checks import first_sentence  # noqa: PLC0415

    try:
        frame = spark.sql(statement.strip().rstrip(";"))
        rows = frame.limit(limit + 1).collect() if frame.columns else []
    except (PySparkException, Py4JJavaError) as error:
        raise StatementError(first_sentence(error)) from None
    if frame.columns:
        show(frame.columns, rows[:limit], len(rows) > limit)


def prompt(spark: SparkSession, limit: int, show: Show, history: Path) -> None:
    """Read statements up to a `;` each, over several lines, until Ctrl-D; Ctrl-C drops the statement begun.

    From a pipe the first wrong statement ends it (StatementError), and the last one needs no `;`.
    """
    person = sys.stdin.isatty()
    remember = _readline(history) if person else lambda: None
    if person:
        typer.echo("SHOW TABLES IN silver; lists tables. A statement ends with `;`, Ctrl-D leaves.", err=True)
    try:
        while (statement := _read_statement(person)) is not None:
            try:
                run_statement(spark, statement, limit, show)
            except StatementError as error:
                if not person:
                    raise
                typer.echo(str(error), err=True)
            except KeyboardInterrupt:
                typer.echo("stopped", err=True)
    finally:
        remember()


def _read_statement(person: bool) -> str | None:
    """The next statement, None at the end."""
    lines: list[str] = []
    while True:
        try:
            lines.append(input(("   ...> " if lines else "lake> ") if person else ""))
        except KeyboardInterrupt:
            typer.echo("", err=True)
            lines = []
        except EOFError:
            rest = "\n".join(lines).strip()
            return rest if rest and not person else None
        text = "\n".join(lines).strip()
        if text.rstrip("; ").lower() in _LEAVE:
            return None
        if not text.strip("; \n"):
            lines = []
        elif text.endswith(";"):
            return text


def _readline(history: Path) -> Callable[[], None]:
    """Load the history of earlier prompts and return what saves it."""
    try:
        import readline  # noqa: PLC0415 - not on every platform
    except ImportError:
        return lambda: None
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(1000)

    def save() -> None:
        history.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(history)

    return save


def show_table(columns: list[str], rows: list[Row], more: bool) -> None:
    """Print a table for people."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    numeric = {at for at in range(len(columns)) if any(isinstance(row[at], int | float) for row in rows)}
    table = Table()
    for at, column in enumerate(columns):
        table.add_column(column, justify="right" if at in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(_text(value)) for value in row))
    console = Console()
    console.print(table)
    console.print(f"the first {len(rows)} rows; --limit shows more" if more else f"{len(rows)} rows", style="dim")


def show_csv(columns: list[str], rows: list[Row], more: bool) -> None:
    """Print CSV; NULL is an empty field."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else _text(value) for value in row] for row in rows)
    typer.echo(target.getvalue(), nl=False)
    _say_more(len(rows), more)


def show_json(columns: list[str], rows: list[Row], more: bool) -> None:
    """Print a JSON list of objects."""
    objects = [dict(zip(columns, (_plain(value) for value in row), strict=True)) for row in rows]
    typer.echo(json.dumps(objects, indent=1, default=_text))
    _say_more(len(rows), more)


def _say_more(count: int, more: bool) -> None:
    if more:
        typer.echo(f"only the first {count} rows; --limit shows more", err=True)


def _plain(value: Any) -> Any:
    return value.asDict(recursive=True) if hasattr(value, "asDict") else value


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        # Bytes are shown so that they survive: as text where they are, else in hexadecimal.
        raw = bytes(value)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "0x" + raw.hex()
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return str(value)
