"""`lakehouse status`: tables, last batches, offsets and lag at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lakehouse.operations.status.facts import LakeStatus
from lakehouse.operations.status.reading import read_status
from pipelines.lake.errors import EXIT_FAILURE
from pipelines.lake.settings_sources import process_settings


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Show rows and versions of the tables, the last batch of each job, each partition's offsets and lag, and who writes.

    Exit code 1: something of the lake could not be read; the rest is shown.
    """
    found = read_status(process_settings(config))
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1, default=str))
    else:
        _show(Console(), found)
    raise typer.Exit(EXIT_FAILURE if found.problems else 0)


def _show(console: Console, found: LakeStatus) -> None:
    tables = Table(title="Tables", title_justify="left")
    _columns(tables, ("table",), ("version", "rows", "files", "size"))
    for table in found.tables:
        size = None if table.bytes is None else f"{table.bytes / 1e6:,.1f} MB"
        tables.add_row(table.name, _n(table.version), _n(table.rows), _n(table.files), size or "-")
    console.print(tables)

    batches = Table(title="Last batch of each job", title_justify="left")
    _columns(batches, ("job", "generation"), ("batch", "read", "inserted", "took"), ("committed (UTC)",))
    for batch in found.batches:
        when = batch.committed_at.strftime("%m-%d %H:%M:%S")
        took = f"{batch.duration_ms / 1000:,.1f} s"
        batches.add_row(batch.job, batch.generation[:12], _n(batch.batch_id), _n(batch.rows), _n(batch.inserted), took, when)
    console.print(batches)

    offsets = Table(title="Next offset of each partition", title_justify="left")
    _columns(offsets, ("partition",), ("Kafka", "Bronze", "Silver", "Bronze lag", "Silver lag"))
    for part in found.partitions:
        ends = (part.kafka_end, part.bronze_end, part.silver_end, part.bronze_lag, part.silver_lag)
        offsets.add_row(str(part.partition), *(_n(end) for end in ends))
    if found.partitions:
        console.print(offsets)
    for part in found.partitions:
        if part.in_transaction:
            said = f"Partition {part.partition}: a transaction is open from offset {part.kafka_stable:,} on"
            console.print(f"{said}; its {part.in_transaction:,} offsets wait for its producer.", markup=False, highlight=False)
    if found.breaker is not None:
        at, style = found.breaker.since, "green" if found.breaker.state == "closed" else "red"
        said = f"Circuit breaker of Silver: {found.breaker.state} since {at:%m-%d %H:%M:%S} UTC"
        more = "" if found.breaker.state == "closed" else "; see `lakehouse breaker show`"
        console.print(f"{said} ({found.breaker.reason}){more}", style=style, markup=False, highlight=False)
    for layer, holder in found.leases.items():
        console.print(f"Lease of {layer}: {holder}", markup=False, highlight=False, soft_wrap=True)
    for problem in [*([found.kafka] if found.kafka else []), *found.problems]:
        console.print(problem, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _columns(table: Table, first: tuple[str, ...], numbers: tuple[str, ...], last: tuple[str, ...] = ()) -> None:
    for heading in first:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in last:
        table.add_column(heading, no_wrap=True)


def _n(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
