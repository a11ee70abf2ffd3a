"""`lakehouse sql`: a SQL prompt on the lake's tables, or one statement."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Row, SparkSession
from rich.console import Console

from lakehouse.operations.sql.cancel import CancelledError, cancellable
from lakehouse.operations.sql.plan import forbid_foreign_code, parse, tables_written, what_it_writes
from lakehouse.operations.sql.session import open_tables
from lakehouse.operations.sql.values import FORMATS, Show, collect, show_auto
from lakehouse.operations.sql.write import NotConfirmedError, ReadOnlyError, Writer, refuse
from lakehouse.proof.checks import first_sentence
from pipelines.lake.errors import LakehouseError, LeaseHeldError, UsageError
from pipelines.lake.settings_sources import process_settings

SHOWN = 100
"""Rows shown unless `--limit` says otherwise."""

_LEAVE = ("exit", "quit", "\\q")


class Format(StrEnum):
    """How rows are printed."""

    AUTO = "auto"
    TABLE = "table"
    VERTICAL = "vertical"
    CSV = "csv"
    JSON = "json"


class StatementError(LakehouseError):
    """Raised when Spark refuses a statement or fails at it."""


def sql(  # noqa: PLR0917 - typer passes by name
    statement: Annotated[str | None, typer.Argument(help="One statement; without it a prompt opens.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    vertical: Annotated[bool, typer.Option("--vertical", help="The same as --format vertical.")] = False,
    form: Annotated[
        Format, typer.Option("--format", help="auto: a table where it fits the terminal, else one value a line (vertical).")
    ] = Format.AUTO,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to print.")] = SHOWN,
    write: Annotated[
        bool, typer.Option("--write", help="Allow statements that write: each is asked about, and holds the lease of its tables.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --write: do not ask.")] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Run SQL on the tables by name (`silver.api_usage_events`); it only reads, unless --write is given.

    A wrong statement ends with its reason and exit code 1, a write without --write with exit code 2.
    """
    show = _show_of(form, {Format.CSV: as_csv, Format.JSON: as_json, Format.VERTICAL: vertical})
    if yes and not write:
        msg = "--yes is for writes, and --write is missing; give both, or none."
        raise UsageError(msg)
    if write and not yes and not sys.stdin.isatty():
        msg = "--write asks before each write, and nobody is there to answer; give --yes with it."
        raise UsageError(msg)
    settings = process_settings(config)
    with Console(stderr=True).status("starting Spark"):
        spark = open_tables(settings, "sql")
    forbid_foreign_code(spark)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # PySpark's own handler breaks the connection to the JVM that a prompt goes on to use.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    writer = Writer(settings, None if yes else _ask) if write else None
    if statement is not None:
        run_statement(spark, statement, limit, show, writer)
    else:
        prompt(spark, limit, show, Path(settings.lake.state_dir) / "sql_history", writer)


def _show_of(form: Format, short: dict[Format, bool]) -> Show:
    asked = {name for name, is_asked in short.items() if is_asked} | ({form} - {Format.AUTO})
    if len(asked) > 1:
        msg = (
            f"--format, --csv, --json and --vertical exclude each other ({' and '.join(sorted(asked))} are asked for); give one."
        )
        raise typer.BadParameter(msg)
    return FORMATS.get(next(iter(asked), Format.AUTO), show_auto)


def run_statement(spark: SparkSession, statement: str, limit: int, show: Show, writer: Writer | None = None) -> None:
    """Run `statement` and show at most `limit` rows.

    Raises StatementError with the first sentence of Spark's reason, ReadOnlyError for a write without a `writer`, and
    CancelledError after Ctrl-C.
    """
    text = statement.strip().rstrip(";")

    def run() -> tuple[list[str], list[Row]]:
        frame = spark.sql(text)
        return frame.columns, collect(frame, limit + 1) if frame.columns else []

    try:
        plan = parse(spark, text)
        what = what_it_writes(plan)
        if what is None:
            columns, rows = cancellable(spark, run)
        elif writer is None:
            refuse(what)
        else:
            tables = tables_written(spark, writer.settings, plan)
            writer.confirm(what, tables)
            with writer.hold(tables):
                columns, rows = cancellable(spark, run)
    except (PySparkException, Py4JJavaError) as error:
        raise StatementError(first_sentence(error)) from None
    if columns:
        show(columns, rows[:limit], len(rows) > limit)


def prompt(spark: SparkSession, limit: int, show: Show, history: Path, writer: Writer | None = None) -> None:
    """Read statements up to a `;` each, over several lines, until Ctrl-D; Ctrl-C drops the statement begun, or cancels it.

    From a pipe the first wrong statement ends it (StatementError), and the last one needs no `;`.
    """
    person = sys.stdin.isatty()
    remember = _readline(history) if person else lambda: None
    if person:
        typer.echo("SHOW TABLES IN silver; lists tables. A statement ends with `;`, Ctrl-D leaves.", err=True)
    try:
        while (statement := _read_statement(person)) is not None:
            try:
                run_statement(spark, statement, limit, show, writer)
            except (StatementError, ReadOnlyError, NotConfirmedError, LeaseHeldError, CancelledError) as error:
                if not person:
                    raise
                typer.echo(str(error), err=True)
            except KeyboardInterrupt:
                typer.echo("stopped", err=True)
    finally:
        remember()


def _ask(question: str) -> str:
    try:
        return input(question)
    except EOFError:
        return ""


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
        import readline  # noqa: PLC0415 - some builds of Python have none
    except ImportError:
        return lambda: None
    with suppress(OSError):  # none yet, or somebody else's: a prompt works without
        readline.read_history_file(history)
    readline.set_history_length(1000)

    def save() -> None:
        with suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)

    return save
