"""`lakehouse breaker`: what Silver's circuit breaker holds back and why, and the operator's way to let it go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.operations.breaker import accept, describe, find_acceptance
from pipelines.lake.errors import UsageError
from pipelines.lake.settings_sources import process_settings

app = typer.Typer(help="Show the circuit breaker of Silver, or accept the dead letters that it holds back.", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="Settings file.")]
_SHOWN = 5


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Config = Path("conf/local.yaml"),
) -> None:
    """Show the state, what is held, when it is tried again, and the last changes."""
    from pipelines.silver.breaker.breaker_store import BreakerStore  # noqa: PLC0415

    settings = process_settings(config)
    newest = BreakerStore(settings).newest(_SHOWN)
    found = describe(settings, newest)
    if as_json:
        typer.echo(json.dumps(found, indent=1, default=str))
        return
    typer.echo(f"state     {found['state']}" + ("" if settings.breaker.enabled else " (switched off: breaker.enabled)"))
    if not newest:
        typer.echo("It never opened.")
        return
    typer.echo(f"since     {newest[0].at:%Y-%m-%d %H:%M:%S} UTC")
    if found["retry_at"]:
        typer.echo(f"next try  {found['retry_at']:%Y-%m-%d %H:%M:%S} UTC")
    if found["waiting"] is not None:
        typer.echo(f"waiting   {found['waiting']:,} records of Bronze that Silver has not read")
    for change in newest:
        share = f"{change.tally.dead_letters:,} of {change.tally.records:,} dead, " if change.tally.records else ""
        typer.echo(f"{change.at:%m-%d %H:%M:%S}  {change.from_state} -> {change.to_state}: {share}{change.reason}")


@app.command()
def reset(
    reason: Annotated[str, typer.Option(help="Why the dead letters are accepted; it is recorded.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be accepted and change nothing.")] = False,
    config: Config = Path("conf/local.yaml"),
) -> None:
    """Close the breaker: what Bronze holds now passes, whatever its share of dead letters; later records count again."""
    from pipelines.silver.breaker.breaker_store import BreakerStore  # noqa: PLC0415

    if not reason.strip():
        msg = "--reason is empty, expected why the dead letters are accepted; give it in a few words."
        raise UsageError(msg)
    settings = process_settings(config)
    accepted = find_acceptance(settings, BreakerStore(settings).last())
    said = f"{accepted.waiting:,} records of Bronze that Silver has not read, whatever their share of dead letters"
    if dry_run:
        typer.echo(f"Would accept {said}; nothing was changed.")
        return
    typer.echo(f"Accepts {said}.")
    accept(settings, accepted, reason.strip())
    typer.echo("The breaker is closed; a stream that `lakehouse up` holds goes on within seconds.")
