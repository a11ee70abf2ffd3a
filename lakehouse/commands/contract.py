"""`lakehouse contract`: whether the tables are as their contract says, and what sets them back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lakehouse.operations.contract import differing, restore_table
from pipelines.lake.errors import UsageError
from pipelines.lake.settings_sources import process_settings
from pipelines.lake.tables import ALL_TABLES

app = typer.Typer(no_args_is_help=True, add_completion=False)
_Config = Annotated[Path, typer.Option(help="Settings file.")]
_DEFAULT = Path("conf/local.yaml")


@app.callback()
def _root() -> None:
    """Say what somebody changed in the tables' properties, features and log files, and set it back."""


@app.command()
def check(config: _Config = _DEFAULT) -> None:
    """Compare each table with its contract; exit code 1 where one differs. Needs no JVM, and changes nothing."""
    said = differing(process_settings(config))
    typer.echo("\n".join(said) if said else "All tables are as their contract says.")
    raise typer.Exit(1 if said else 0)


@app.command()
def restore(
    table: Annotated[str, typer.Argument(help="Table, such as silver.api_usage_events.")], config: _Config = _DEFAULT
) -> None:
    """Set back what differs in one table: damaged derived files, properties, and table features (these by Spark)."""
    name = next((one for one in ALL_TABLES if str(one) == table), None)
    if name is None:
        msg = f"`{table[:80]}` is not a table of the lake; give one of {', '.join(map(str, ALL_TABLES))}."
        raise UsageError(msg)
    done = restore_table(process_settings(config), name)
    typer.echo("\n".join(done) if done else f"{name} is as its contract says; nothing was changed.")
