"""`lakehouse schema check`: whether a change of the event schema is compatible, and why not."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from pipelines.lake.errors import UsageError
from pipelines.lake.event_schema import EventSchema, read_schema, read_schemas
from pipelines.lake.schema_changes import SchemaChange, compare_schemas, version_order
from pipelines.lake.settings_sources import process_settings
from pipelines.lake.storage.local_files import files_in, is_there

app = typer.Typer(help="Look at the versions of the event schema.", no_args_is_help=True, add_completion=False)

_Arg = typer.Argument(metavar="[FILE|VERSION]", show_default=False)


@app.callback()
def _group() -> None:
    """Look at the versions of the event schema."""


@app.command()
def check(
    old: Annotated[str | None, _Arg] = None,
    new: Annotated[str | None, _Arg] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Compare OLD with NEW (files, or versions in `schemas_dir`); without them every version with the one before it.

    Exit code 0: compatible, 1: a change breaks producers or readers, 2: there is nothing to compare.
    """
    folder = Path(process_settings(config).schemas_dir)
    steps = _all_steps(folder) if old is None else [_step(folder, old, new)]
    breaking = sum(not change.compatible for _, changes in steps for change in changes)
    if as_json:
        found = [{"step": title, "changes": [change.as_dict() for change in changes]} for title, changes in steps]
        typer.echo(json.dumps({"compatible": not breaking, "steps": found}, indent=1))
    else:
        _show(steps, breaking)
    raise typer.Exit(1 if breaking else 0)


def _show(steps: list[tuple[str, list[SchemaChange]]], breaking: int) -> None:
    for title, changes in steps:
        typer.echo(f"{title}: {_counted(len(changes), 'change')}")
        for change in changes:
            typer.echo(f"  {change}")
    if not steps:
        typer.echo("There is one version: nothing to compare it with.")
    typer.echo(f"{_counted(breaking, 'breaking change')}." if breaking else "Compatible.")


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number in (0, 1) else 's'}"


def _step(folder: Path, old: str, new: str | None) -> tuple[str, list[SchemaChange]]:
    if new is None:
        msg = f"Only `{old}` was given, expected two files or versions; give OLD and NEW, or neither to check all versions."
        raise UsageError(msg)
    before, after = _read(folder, old), _read(folder, new)
    return f"{before.version} -> {after.version}", compare_schemas(before, after)


def _all_steps(folder: Path) -> list[tuple[str, list[SchemaChange]]]:
    found = [read_schema(path) for path in files_in(folder, "*.json")]
    versions = sorted(found, key=lambda schema: version_order(schema.version))
    if not versions:
        read_schemas(folder)  # says so
    steps = []
    for place, (old, new) in enumerate(pairwise(versions)):
        steps.append((f"{old.version} -> {new.version}", compare_schemas(old, new, versions[:place])))
    return steps


def _read(folder: Path, given: str) -> EventSchema:
    path = Path(given)
    if not is_there(path) or path.is_dir():
        path = folder / f"{given}.json"
        if not is_there(path):
            have = ", ".join(found.stem for found in files_in(folder, "*.json")) or "none"
            msg = f"`{given[:100]}` is neither a file nor a version in {folder} (there: {have}); give one of these, or a path."
            raise UsageError(msg)
    return read_schema(path)
