"""`lakehouse dlq list|show|stats|discard|replay` at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.operations.dead_letters import screen
from lakehouse.operations.dead_letters.decide import discard as close
from lakehouse.operations.dead_letters.decide import select_for_discard
from lakehouse.operations.dead_letters.filters import STATES, LetterFilter, read_filter, read_place
from lakehouse.operations.dead_letters.letters import COUNTED, count_by, open_letters, read_letter, read_letters
from pipelines.lake.delta_log.plain_read import to_rows
from pipelines.lake.errors import UsageError
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import process_settings

app = typer.Typer(help="Dead letters: list, show, count, discard, replay.", no_args_is_help=True, add_completion=False)

Rules = Annotated[list[str] | None, typer.Option("--rule", help="Rule id such as SLV-005; may be given several times.")]
Days = Annotated[str | None, typer.Option("--date", help="Kafka day (UTC), or a range DAY..DAY with both ends.")]
Partition = Annotated[int | None, typer.Option("--partition", help="Kafka partition.")]
Offsets = Annotated[str | None, typer.Option("--offset", help="Kafka offset, or a range A..B with both ends.")]
Status = Annotated[str | None, typer.Option("--status", help="open, replayed or discarded.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Config = Annotated[Path, typer.Option("--config", help="Settings file.")]

_CONFIG = Path("conf/local.yaml")


@app.command("list")
def list_letters(  # noqa: PLR0917 - typer passes by name
    rule: Rules = None,
    date: Days = None,
    partition: Partition = None,
    offset: Offsets = None,
    status: Status = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most letters to show, the newest first.")] = 50,
    as_json: Json = False,
    config: Config = _CONFIG,
) -> None:
    """List dead letters without their payload: place, rules, sentence, status, attempts, dates."""
    chosen = read_filter(rule, date, partition, offset, status)
    rows = read_letters(open_letters(_settings(config)), chosen)
    newest = rows.sort_by([(name, "descending") for name in ("_kafka_timestamp", "_kafka_partition", "_kafka_offset")])
    shown = to_rows(newest.slice(0, limit))
    if as_json:
        typer.echo(json.dumps({"total": rows.num_rows, "letters": [screen.plain(row) for row in shown]}, indent=1))
    else:
        screen.show_list(shown, rows.num_rows)


@app.command()
def show(
    place: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="Where the record stands in Kafka.")],
    raw: Annotated[bool, typer.Option("--raw", help="Show the value's bytes too; they may hold personal data.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the value's bytes to this new file.")] = None,
    as_json: Json = False,
    config: Config = _CONFIG,
) -> None:
    """Show all that is known of one dead letter; its bytes only with --raw or --out."""
    partition, offset = read_place(place)
    row = read_letter(open_letters(_settings(config)), partition, offset)
    value = row.pop("_raw_value")
    if (raw or out) and value is None:
        msg = f"The bytes of {place} are gone: the letter was closed and its retention is over; Bronze may have them still."
        raise UsageError(msg)
    if out:
        screen.write_new(out, value)
    if as_json:
        typer.echo(json.dumps({**screen.plain(row), **({"_raw_value_hex": value.hex()} if raw else {})}, indent=1))
    else:
        screen.show_letter(row, value if raw else None)
        if out:
            typer.echo(f"{len(value):,} bytes written to {out}")


@app.command()
def stats(  # noqa: PLR0917 - typer passes by name
    rule: Rules = None,
    date: Days = None,
    partition: Partition = None,
    offset: Offsets = None,
    status: Status = None,
    as_json: Json = False,
    config: Config = _CONFIG,
) -> None:
    """Count dead letters by day, rule and status; one that breaks several rules counts under each."""
    chosen = read_filter(rule, date, partition, offset, status)
    rows = read_letters(open_letters(_settings(config)), chosen, COUNTED)
    states = rows.column("_status").to_pylist()
    found = {"total": rows.num_rows, **{state: states.count(state) for state in STATES}, "by": count_by(rows)}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        screen.show_stats(found)


@app.command()
def discard(  # noqa: PLR0917 - typer passes by name
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with each letter. No payload, please.")],
    rule: Rules = None,
    date: Days = None,
    partition: Partition = None,
    offset: Offsets = None,
    status: Status = None,
    all_letters: Annotated[bool, typer.Option("--all", help="Discard every open letter: no filter is given.")] = False,
    dry_run: DryRun = False,
    config: Config = _CONFIG,
) -> None:
    """Close open dead letters for good: no replay takes them, and they stay counted as dead letters."""
    from lakehouse.operations.dead_letters.filters import read_filter  # noqa: PLC0415
    from lakehouse.operations.dead_letters.letters import open_letters  # noqa: PLC0415
    from pipelines.lake.lease.layers import lease_of  # noqa: PLC0415

    chosen, settings = read_filter(rule, date, partition, offset, status), _settings(config)
    _refuse_careless(chosen, reason, all_letters=all_letters)
    table = open_letters(settings)
    rows = select_for_discard(table, chosen)
    typer.echo(f"{rows.num_rows:,} open dead letters match{' and would be discarded.' if dry_run else '.'}")
    if not dry_run and rows.num_rows:
        with lease_of(settings, "silver", job="dlq", run="discard").hold():
            table.update_incremental()
            typer.echo(f"{close(table, chosen, reason.strip()):,} discarded.")


@app.command()
def replay(  # noqa: PLR0917 - typer passes by name
    rule: Rules = None,
    date: Days = None,
    partition: Partition = None,
    offset: Offsets = None,
    status: Status = None,
    force: Annotated[bool, typer.Option("--force", help="Take letters too that were tried `dlq.max_attempts` times.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    config: Config = _CONFIG,
) -> None:
    """Run open dead letters through Silver again, with today's schema files; those that pass become events."""
    from lakehouse.operations.dead_letters.run_replay import run_replay  # noqa: PLC0415

    chosen = read_filter(rule, date, partition, offset, status)
    found = run_replay(_settings(config), chosen, force=force, dry_run=dry_run, say=lambda text: typer.echo(text, err=as_json))
    if as_json:
        typer.echo(json.dumps(found, indent=1))


def _refuse_careless(chosen: LetterFilter, reason: str, *, all_letters: bool) -> None:
    if not reason.strip():
        msg = "The reason is empty, expected a sentence that tells the next person why; give it with --reason."
        raise UsageError(msg)
    if chosen.is_empty and not all_letters:
        msg = "No filter was given, expected --rule, --date, --partition or --offset; give --all to discard every open letter."
        raise UsageError(msg)


def _settings(config: Path) -> Settings:
    return process_settings(config)
