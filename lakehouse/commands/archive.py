"""`lakehouse archive`: what Bronze's archive holds, and whether it still holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lakehouse.operations.archive import read_back
from pipelines.archive.remaking import remake_manifest as remake
from pipelines.archive.units import Archive, Unit
from pipelines.lake.days import parse_day, parse_optional_day
from pipelines.lake.settings_sources import process_settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Show, verify and mend the archive of Bronze.")
EXIT_DAMAGED = 3

Config = Annotated[Path, typer.Option(help="Settings file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_(
    as_json: AsJson = False,
    config: Config = Path("conf/local.yaml"),
) -> None:
    """List the units of the archive, by day: rows, size, offsets, and until when they are kept."""
    archive = Archive.of(process_settings(config))
    units = archive.units()
    if as_json:
        typer.echo(json.dumps({"archive": archive.root, "units": [_plain(unit) for unit in units]}, indent=1, default=str))
        return
    for unit in units:
        offsets = ", ".join(f"{part.partition}: {part.first_offset} to {part.last_offset}" for part in unit.parts)
        typer.echo(
            f"{unit.day}  run {unit.run}  {unit.rows:>12,} rows  {unit.bytes / 1e6:>9,.1f} MB  until {unit.keep_until}"
            f"  (partition: offsets {offsets})"
        )
    rows, size = sum(unit.rows for unit in units), sum(unit.bytes for unit in units)
    days = len({unit.day for unit in units})
    typer.echo(f"{rows:,} rows of {days} days, {size / 1e6:,.1f} MB, in {archive.root}")


@app.command()
def verify(
    from_date: Annotated[str | None, typer.Option(help="First UTC day.")] = None,
    to_date: Annotated[str | None, typer.Option(help="Last UTC day.")] = None,
    as_json: AsJson = False,
    config: Config = Path("conf/local.yaml"),
) -> None:
    """Read the archive's files back and compare them with their manifests and records; exit code 3 if one is damaged."""
    first, last = parse_optional_day(from_date, "--from-date"), parse_optional_day(to_date, "--to-date")
    units, problems = read_back(process_settings(config), first, last)
    rows = sum(unit.rows for unit in units)
    if as_json:
        found_all = {"units": len(units), "rows": rows, "problems": problems}
        typer.echo(json.dumps(found_all, indent=1, default=str))
    else:
        for one in problems:
            typer.echo(f"{one['day']}  run {one['run']}  {one['problem']}")
        said = f"{len(problems)} problems; see playbooks/bronze-archive.md" if problems else "nothing is wrong"
        typer.echo(f"{rows:,} rows in {len(units)} units were read back: {said}.")
    raise typer.Exit(EXIT_DAMAGED if problems else 0)


@app.command("remake-manifest")
def remake_manifest(
    day: Annotated[str, typer.Option(help="UTC day of the copy.")],
    run: Annotated[str, typer.Option(help="Its run, as `archive verify` names it.")],
    config: Config = Path("conf/local.yaml"),
) -> None:
    """Write the lost manifest of a recorded copy from its files; refused unless they hold the offsets on record, no more.

    A backup's manifest is better: it also says that no byte of the files has changed.
    """
    unit = remake(process_settings(config), parse_day(day, "--day"), run)
    typer.echo(f"{unit.day}  run {unit.run}  {unit.rows:,} rows in {len(unit.files)} files: the manifest was written anew.")


def _plain(unit: Unit) -> dict[str, Any]:
    return {**vars(unit), "rows": unit.rows, "bytes": unit.bytes, "files": [vars(file) for file in unit.files]} | {
        "parts": [vars(part) for part in unit.parts]
    }
