"""`lakehouse verify`: the independent checker at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lakehouse.proof.result import Invariant
from lakehouse.proof.runner import VerifyOptions
from lakehouse.proof.runner import verify as run
from pipelines.lake.settings_sources import process_settings

_STYLES = {"holds": "green", "violated": "bold red", "not checked": "yellow"}


def verify(  # noqa: PLR0917 - typer passes by name
    ledger: Annotated[Path | None, typer.Option(help="Folder of the op ledger; default: the one of `lakehouse produce`.")] = None,
    gold_digest: Annotated[Path | None, typer.Option(help="Digest of Gold from before a replay, to compare with (I6).")] = None,
    write_digest: Annotated[Path | None, typer.Option(help="Write a digest of Gold's content to this file.")] = None,
    others_send: Annotated[
        bool,
        typer.Option("--others-send", help="Others send to the topic too: only count records that the ledger does not know."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Prove from the tables alone that every acknowledged record is accounted for; exit code 1 if an invariant is violated."""
    console = Console()
    options = VerifyOptions(ledger, gold_digest, write_digest, others_send)
    settings = process_settings(config)
    with Console(stderr=True).status("opening tables") as status:
        results = run(settings, options, status.update)
    violated = [result for result in results if result.verdict == "violated"]
    if as_json:
        typer.echo(json.dumps({"holds": not violated, "invariants": [result.as_dict() for result in results]}, indent=1))
    else:
        show(console, results)
    raise typer.Exit(1 if violated else 0)


def show(console: Console, results: list[Invariant]) -> None:
    """Print a line for each invariant, then what is wrong and where first."""
    table = Table(title="Invariants, checked without the pipeline's code", title_justify="left")
    for heading in ("id", "invariant", "verdict", "counted"):
        table.add_column(heading, overflow="fold")
    for result in results:
        counts = ", ".join(f"{count:,} {label}" for label, count in result.counts.items())
        table.add_row(result.id, result.title, Text(result.verdict, style=_STYLES[result.verdict]), counts)
    console.print(table)
    for result in results:
        for finding in result.findings:
            console.print(Text(f"{result.id} {finding.count:,} x {finding.problem}", style="red"))
            for place in finding.first:
                console.print(Text(f"     {place}"))
        if result.skipped:
            console.print(Text(f"{result.id} not checked: {result.skipped}", style="yellow"))
        for note in result.notes:
            console.print(Text(f"{result.id} note: {note}", style="dim"))
    bad = [result.id for result in results if result.verdict == "violated"]
    if bad:
        console.print(Text(f"Violated: {', '.join(bad)}.", style="bold red"))
    else:
        open_ = [result.id for result in results if result.verdict == "not checked"]
        console.print(
            Text("Nothing is violated." + (f" Not checked: {', '.join(open_)}." if open_ else " All hold."), style="green")
        )
