"""Checkpoints as tables on a terminal."""

from __future__ import annotations

from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lakehouse.operations.checkpoints.details import BatchDetails, Details
from lakehouse.operations.checkpoints.listing import Overview
from lakehouse.operations.checkpoints.verify import Verdict
from pipelines.lake.checkpoint.spark_files import DeltaPosition

_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def show_list(root: str, found: list[Overview], kafka: str | None) -> None:
    """Print a line for each checkpoint, then what the ledger says of it and what could not be read."""
    console = Console()
    table = _table(f"Checkpoints in {root}", "checkpoint", "generation", "query", right=("planned", "done", "age", "lag"))
    for one in found:
        lag = "-" if one.lag is None else f"{one.lag:,} {one.lag_unit}"
        batches = (_n(number) for number in (one.planned, one.committed))
        name = f"{one.job}/{one.folder}"
        table.add_row(name, one.generation or "-", (one.query_id or "-")[:8], *batches, _age(one.age_seconds), lag)
    console.print(table)
    if not found:
        console.print("There is no checkpoint yet.")
    for one in found:
        if one.is_unread:
            continue
        told = "nothing" if one.ledger_batch is None else f"batch {one.ledger_batch:,}, up to {_ends(one.ledger_end)}"
        console.print(Text(f"The ledger has of {one.job}/{one.folder}: {told}"))
    for problem in [*(f"{one.job}/{one.folder}: {one.problem}" for one in found if one.problem), *([kafka] if kafka else [])]:
        console.print(Text(problem, style="yellow"))


def show_details(found: Details) -> None:
    """Print whose the checkpoint is, then its batches."""
    console, state = Console(), found.state
    marker = state.marker
    lines = {
        "job": marker.job if marker else "-",
        "generation": marker.generation if marker else "-",
        "query": state.query_id or "-",
        "starting": (marker.starting if marker else "") or "-",
        "batches": f"planned up to {_n(state.last_planned)}, committed up to {_n(state.last_committed)}",
        "state": "kept here" if state.has_state else "none",
        **{f"last batch in {name}": _n(done) for name, done in found.transactions.items()},
    }
    console.print(Text(state.path, style="bold"))
    for name, value in lines.items():
        console.print(Text(f"  {name}: {value}"))
    headings = ("start", "end", "count", "done (UTC)", "read", "inserted")
    table = _table("Batches; read and inserted: what the ledger has of them", "batch", "of", right=headings)
    for batch in found.batches:
        for number, cells in enumerate(_ranges(batch)):
            table.add_row("" if number else str(batch.batch_id), *cells, *(() if number else _told(batch)))
    if found.batches:
        console.print(table)
    problems = [f"{file.name} {file.problem}" for file in state.broken] + ([found.lake_problem] if found.lake_problem else [])
    for problem in problems:
        console.print(Text(problem, style="yellow"))


def show_verdict(verdict: Verdict) -> None:
    """Print each finding with its playbook, then the verdict."""
    console = Console()
    for finding in verdict.findings:
        playbook = f" See playbooks/{finding.playbook}.md" if finding.playbook else ""
        console.print(Text.assemble((f"{finding.severity}: ", _STYLES[finding.severity]), finding.message, (playbook, "dim")))
    wrong = sum(finding.severity != "info" for finding in verdict.findings)
    if verdict.is_sound:
        console.print(Text(f"{verdict.state.path} is sound.", style="green"))
    else:
        console.print(Text(f"{verdict.state.path} is not sound: {wrong} finding{'s' if wrong > 1 else ''}.", style="bold red"))


def _table(title: str, *left: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _ranges(batch: BatchDetails) -> list[list[str]]:
    if batch.partitions:
        return [[f"partition {one.partition}", _n(one.start), _n(one.end), _n(one.count)] for one in batch.partitions]
    if batch.end is None:
        return [["cannot be read", "-", "-", "-"]]
    return [["versions", _position(batch.start), _position(batch.end), "-"]]


def _told(batch: BatchDetails) -> list[str]:
    when = _when(batch.committed_at) if batch.committed_at else f"no, planned {_when(batch.planned_at)}"
    row = batch.ledger
    return [when, _n(row.rows_read if row else None), _n(row.inserted if row else None)]


def _position(position: DeltaPosition | None) -> str:
    if position is None:
        return "-"
    file = f" file {position.index}" if position.index >= 0 else ""
    return f"{position.version}{file}{' (snapshot)' if position.is_snapshot else ''}"


def _ends(ledger: dict[str, list[int]] | None) -> str:
    """Kafka's next offset of each partition, or the last version of a table."""
    return " ".join(f"{name}:{end}" for name, (_, end) in ledger.items()) if ledger else "-"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _when(moment: datetime | None) -> str:
    return "-" if moment is None else moment.strftime("%m-%d %H:%M:%S")


def _n(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
