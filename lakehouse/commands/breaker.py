"""`lakehouse breaker`: what Silver's circuit breaker holds back and why, and the operator's way to let it go on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.lake.errors import UsageError

if TYPE_CHECKING:
    from pipelines.lake.settings import Settings
    from pipelines.silver.breaker.breaker_store import Transition

app = typer.Typer(help="Show the circuit breaker of Silver, or accept the dead letters that it holds back.", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="Settings file.")]
_SHOWN = 5


@dataclass(frozen=True)
class Acceptance:
    """What a reset would let pass: records that Bronze has and Silver has not read, by partition the end (exclusive)."""

    ends: dict[int, int]
    waiting: int
    last: Transition


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Config = Path("conf/local.yaml"),
) -> None:
    """Show the state, what is held, when it is tried again, and the last changes."""
    from pipelines.lake.settings import process_settings  # noqa: PLC0415 - keeps `--help` fast
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
    from pipelines.lake.settings import process_settings  # noqa: PLC0415
    from pipelines.silver.breaker.breaker_store import BreakerStore, Transition  # noqa: PLC0415

    if not reason.strip():
        msg = "--reason is empty, expected why the dead letters are accepted; give it in a few words."
        raise UsageError(msg)
    settings = process_settings(config)
    store = BreakerStore(settings)
    accepted = find_acceptance(settings, store.last())
    said = f"{accepted.waiting:,} records of Bronze that Silver has not read, whatever their share of dead letters"
    if dry_run:
        typer.echo(f"Would accept {said}; nothing was changed.")
        return
    typer.echo(f"Accepts {said}.")
    last = accepted.last
    store.append(
        Transition(datetime.now(UTC), last.to_state, "closed", last.tally, f"reset: {reason.strip()}", accepted=accepted.ends)
    )
    typer.echo("The breaker is closed; a stream that `lakehouse up` holds goes on within seconds.")


def describe(settings: Settings, newest: list[Transition]) -> dict[str, Any]:
    """What `show` says, as plain values; `newest` are the last transitions, the newest first."""
    from pipelines.silver.breaker.breaker import Limits  # noqa: PLC0415

    last = newest[0] if newest else None
    is_open = last is not None and last.to_state != "closed"
    return {
        "state": last.to_state if last else "closed",
        "enabled": settings.breaker.enabled,
        "since": last.at if last else None,
        "retry_at": last.breaker().retry_at(Limits.of(settings.breaker)) if last and last.to_state == "open" else None,
        "waiting": find_acceptance(settings, last).waiting if is_open else None,
        "changes": [
            {
                "at": change.at,
                "from": change.from_state,
                "to": change.to_state,
                "share": change.tally.share,
                "records": change.tally.records,
                "dead_letters": change.tally.dead_letters,
                "batch": change.batch_id,
                "offsets": change.offsets,
                "reason": change.reason,
            }
            for change in newest
        ],
    }


def find_acceptance(settings: Settings, last: Transition | None) -> Acceptance:
    """What a reset would accept; raises UsageError where the breaker is closed."""
    from pipelines.lake.ledger.ledger import Ledger  # noqa: PLC0415
    from pipelines.silver.breaker.breaker import merge_ends  # noqa: PLC0415

    if last is None or last.to_state == "closed":
        msg = "The circuit breaker is closed, so there is nothing to reset; `lakehouse breaker show` tells what it did."
        raise UsageError(msg)
    ledger = Ledger(settings)
    ends = merge_ends(merge_ends(ledger.end_offsets("bronze"), last.held_ends()), last.accepted)
    read = ledger.end_offsets("silver")
    first = {int(partition): start for partition, (start, _) in last.offsets.items()}
    waiting = sum(max(0, end - read.get(partition, first.get(partition, 0))) for partition, end in ends.items())
    return Acceptance(ends, waiting, last)
