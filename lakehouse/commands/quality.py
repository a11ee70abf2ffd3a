"""`lakehouse quality`: what audits found and which days wait at the gate before the bill, and an audit that publishes nothing."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lakehouse.operations.quality import Audits, failures_first, read_audits, what_makes_one
from pipelines.gold.gate.results import Audit, Gate, Result
from pipelines.lake.days import parse_day, parse_optional_day
from pipelines.lake.errors import EXIT_REFUSED
from pipelines.lake.logging import setup_logging
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import process_settings

app = typer.Typer(
    help="Show what audits of days found, or audit a day without publishing it.", no_args_is_help=True, add_completion=False
)

Config = Annotated[Path, typer.Option(help="Settings file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_STYLES = {Gate.PASSED: "green", Gate.REFUSED: "bold red", Gate.OVERRIDDEN: "yellow", Gate.AUDITED: "cyan"}
_PLAYBOOK = "playbooks/quality-gate.md"


@app.command()
def show(
    date: Annotated[str | None, typer.Option(help="Audits of this day (YYYY-MM-DD); default: of the last audited days.")] = None,
    as_json: AsJson = False,
    config: Config = Path("conf/local.yaml"),
) -> None:
    """Show the newest audit of each day, or all of one day, and the days that wait at the gate."""
    settings, day = process_settings(config), parse_optional_day(date, "--date")
    found = read_audits(settings, day)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1))
    else:
        _show(_console(), found, settings)


@app.command()
def run(
    date: Annotated[str, typer.Option(help="Day to audit, YYYY-MM-DD (UTC).")],
    as_json: AsJson = False,
    config: Config = Path("conf/local.yaml"),
) -> None:
    """Audit a day as the gate would now, and publish nothing; exit code 5 if the gate would refuse it."""
    settings, day = process_settings(config), parse_day(date, "--date")
    setup_logging(settings.log)
    audit = _audit(settings, day)
    if as_json:
        typer.echo(json.dumps(Audits(day, (audit,), read_audits(settings, day).waiting).as_dict(), indent=1))
    else:
        console = _console()
        _show_audit(console, audit, failures_first(audit))
        console.print(_verdict(audit), soft_wrap=True)
    raise typer.Exit(EXIT_REFUSED if audit.blocking else 0)


def _audit(settings: Settings, day: datetime.date) -> Audit:
    # Spark and Great Expectations take seconds, which `show` does not need.
    from pyspark.errors import PySparkException  # noqa: PLC0415

    from lakehouse.operations.quality_run import audit_now  # noqa: PLC0415
    from pipelines.runtime.failures import named_error  # noqa: PLC0415

    with Console(stderr=True).status("starting Spark") as status:
        try:
            return audit_now(settings, day, status.update)
        except PySparkException as error:
            raise named_error(error) from None


def _console() -> Console:
    return Console(highlight=False)


def _show(console: Console, found: Audits, settings: Settings) -> None:
    newest = found.newest
    if newest is None:
        console.print(Text(what_makes_one(settings, found.day)), soft_wrap=True)
        return
    if found.day is None:
        _show_days(console, found)
    _show_audit(console, newest, failures_first(newest) if found.day else newest.failures)
    if found.day is not None:
        for audit in found.found[1:]:
            said = f"before: {audit.audited_at:%Y-%m-%d %H:%M:%S} UTC, run {audit.run_id}, {audit.in_words}"
            console.print(Text(said), soft_wrap=True)
        for day, audit in found.waiting.items():
            console.print(Text(f"{day} waits at the gate since run {audit.run_id} ({_PLAYBOOK}).", style="red"), soft_wrap=True)


def _show_days(console: Console, found: Audits) -> None:
    table = Table(title="Newest audit of each day", title_justify="left")
    for heading in ("day", "", "gate"):
        table.add_column(heading, no_wrap=True)
    for heading in ("fail", "block", "of"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("audited (UTC)", "run"):
        table.add_column(heading, no_wrap=True)
    for audit in found.found:
        counts = (len(audit.failures), len(audit.blocking), len(audit.results))
        waits = Text("waits" if audit.day in found.waiting else "", style="bold red")
        gate, at = Text(audit.gate, style=_STYLES[audit.gate]), f"{audit.audited_at:%m-%d %H:%M:%S}"
        table.add_row(str(audit.day), waits, gate, *map(str, counts), at, audit.run_id)
    console.print(table)
    if found.waiting:
        days = ", ".join(map(str, found.waiting))
        said = f"Waiting at the gate: {days}; see `lakehouse quality show --date DAY` and {_PLAYBOOK}."
        console.print(Text(said, style="red"), soft_wrap=True)
    console.print()


def _show_audit(console: Console, audit: Audit, results: list[Result]) -> None:
    """Show an audit's facts, the given results as a table, and what to do about those that fail."""
    console.print(Text(f"Audit of {audit.day}, {audit.in_words}", style=_STYLES[audit.gate]), soft_wrap=True)
    candidate = "" if audit.gold_version is None else f", candidate version {audit.gold_version}"
    at = f"{audit.audited_at:%Y-%m-%d %H:%M:%S} UTC"
    facts = {"run": f"{audit.run_id}, {at}; Silver version {audit.silver_version}{candidate}"}
    if audit.override is not None:
        facts["override"] = f"by {audit.override.by}: {audit.override.reason}"
    if audit.docs:
        facts["page"] = audit.docs
    for name, fact in facts.items():
        console.print(Text(f"  {name:<9} {fact}"), soft_wrap=True)
    if results:
        console.print(_table(results))
    for one in audit.failures:
        console.print(Text(f"  {one.expectation}: {one.says} See playbooks/{one.playbook}.md."), soft_wrap=True)


def _table(results: list[Result]) -> Table:
    table = Table()
    for heading in ("expectation", "severity", "holds", "observed", "expected"):
        table.add_column(heading, overflow="fold")
    for one in results:
        holds = "not evaluated" if one.success is None else "yes" if one.success else "no"
        style = "green" if not one.failed else "bold red" if one.blocks else "yellow"
        first, last = (one.expectation, one.severity), (one.observed, one.expected)
        table.add_row(*map(Text, first), Text(holds, style=style), *map(Text, last))
    return table


def _verdict(audit: Audit) -> Text:
    if audit.blocking:
        said = f"The gate would refuse {audit.day}: {len(audit.blocking)} expectations that block do not hold"
        return Text(f"{said}. Nothing was published.", style="bold red")
    return Text(f"The gate would let {audit.day} pass. Nothing was published.", style="green")
