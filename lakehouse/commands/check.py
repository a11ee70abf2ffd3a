"""`lakehouse check`: the SQL verification checks at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lakehouse.operations.sql.session import open_tables
from lakehouse.proof.checks import COUNTED, Check, CheckResult, check_parameters, choose_checks, load_checks, run_checks
from pipelines.lake.days import parse_optional_day
from pipelines.lake.settings_sources import process_settings

_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def check(
    ids: Annotated[list[str] | None, typer.Argument(help="Checks to run; default: all.", metavar="[ID]...")] = None,
    date: Annotated[str | None, typer.Option(help="Only this day (YYYY-MM-DD); default: all days.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the checks instead of running them.")] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Run the SQL checks in sql/checks; exit code 1 if one of severity error has offenders."""
    settings = process_settings(config)
    chosen, day = choose_checks(load_checks(), ids or []), parse_optional_day(date, "--date")
    if list_only:
        show_list(Console(), chosen)
        return

    with Console(stderr=True).status("starting Spark") as status:
        spark = open_tables(settings, "check")
        status.update(f"running {len(chosen)} checks")
        results = run_checks(spark, chosen, day, check_parameters(settings, day))
    red = [result for result in results if result.is_red]
    if as_json:
        found = {"passed": not red, "date": date, "checks": [result.as_dict() for result in results]}
        typer.echo(json.dumps(found, indent=1, default=str))
    else:
        show_results(Console(), results)
    raise typer.Exit(1 if red else 0)


def show_list(console: Console, checks: list[Check]) -> None:
    """Print what each check looks for."""
    table = Table(title="Checks", title_justify="left")
    for heading in ("id", "severity", "title", "an offender is"):
        table.add_column(heading, no_wrap=heading in ("id", "severity"))
    for one in checks:
        table.add_row(one.id, Text(one.severity, style=_STYLES[one.severity]), one.title, one.grain)
    console.print(table)


def show_results(console: Console, results: list[CheckResult]) -> None:
    """Print a line for each check, then the first offenders of those that found some, with the playbook to follow."""
    table = Table(title="Checks", title_justify="left")
    for heading in ("id", "title", "severity"):
        table.add_column(heading, no_wrap=heading != "title")
    table.add_column("offenders", justify="right", no_wrap=True)
    for result in results:
        table.add_row(result.check.id, result.check.title, result.check.severity, _found(result))
    console.print(table)
    for result in results:
        if result.outcome in ("failed", "skipped"):
            console.print(Text(f"{result.check.id} {result.outcome}: {result.reason}", style="red" if result.is_red else "dim"))
        elif result.outcome == "offenders":
            style = _STYLES[result.check.severity]
            console.print(Text(f"{result.check.id}: see playbooks/{result.check.playbook}.md", style=style))
            for row in result.first:
                console.print(Text("     " + " ".join(f"{name}={value}" for name, value in row.items())))
    counts = {
        outcome: sum(result.outcome == outcome for result in results) for outcome in ("passed", "offenders", "skipped", "failed")
    }
    red = sum(result.is_red for result in results)
    summary = (
        f"{counts['passed']} passed, {counts['offenders']} with offenders, {counts['skipped']} skipped, {counts['failed']} failed"
    )
    console.print(Text(f"{summary}: {red} red." if red else f"{summary}: nothing red.", style="bold red" if red else "green"))


def _found(result: CheckResult) -> Text:
    if result.outcome == "passed":
        return Text("0", style="green")
    if result.outcome == "offenders":
        count = f"over {COUNTED:,}" if result.count > COUNTED else f"{result.count:,}"
        return Text(count, style=_STYLES[result.check.severity])
    return Text(result.outcome, style="red" if result.is_red else "dim")
