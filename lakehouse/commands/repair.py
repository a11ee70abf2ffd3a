"""`lakehouse repair`: fill what is missing where the source still has it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.operations.repair import Repaired, find_holes, repair
from pipelines.lake.ledger.known_gaps import Gap
from pipelines.lake.logging import setup_logging
from pipelines.lake.settings_sources import process_settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Fill what is missing where the source still has it.")


@app.callback()
def _root() -> None:
    """Repair has a subcommand for each layer."""


@app.command()
def bronze(
    dry_run: Annotated[
        bool, typer.Option(help="Say which offsets are missing and what would be done, and write nothing.")
    ] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Fill the holes in Bronze's offsets from Kafka; record those that Kafka cannot fill, with their cause."""
    settings = process_settings(config)
    setup_logging(settings.log)
    holes = find_holes(settings)
    _say(
        f"{_count(holes.all)} missing in Bronze, of which Kafka may still have {_count(holes.fillable)} and has deleted "
        f"{_count(holes.lost)}"
    )
    for gap in holes.all:
        _say(f"  {gap}")
    if holes.all and not dry_run:
        _show(repair(settings, holes), holes.lost)


def _show(done: Repaired, lost: list[Gap]) -> None:
    _say(
        f"{done.filled:,} offsets filled; recorded in ops.known_gaps: {_count(done.empty)} without a record in Kafka, "
        f"{_count(lost)} lost to retention"
    )
    if lost:
        _say(
            "what is lost came to no customer's bill; see playbooks/retention-overrun.md, and ask the producers to send it again"
        )


def _count(gaps: list[Gap]) -> str:
    offsets = sum(map(len, gaps))
    return f"{offsets:,} offsets in {len(gaps)} holes" if offsets else "none"


def _say(text: str) -> None:
    typer.echo(text, file=sys.stdout)
