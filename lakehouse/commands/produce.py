"""`lakehouse produce`: send events to Kafka and write the op ledger."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lakehouse.local.access_log import count_lines
from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.producer import ProduceSummary, produce_events
from pipelines.lake.errors import EXIT_INTERRUPTED, UsageError
from pipelines.lake.logging import setup_logging
from pipelines.lake.process import on_stop_signals
from pipelines.lake.settings_sources import process_settings

_DEFAULT_COUNT = 100_000
_MIX = Mix()


def _ratio(flag: str, text: str) -> typer.models.OptionInfo:
    return typer.Option(flag, help=f"Share of {text}, 0 to 1.", rich_help_panel="Mix")  # type: ignore[no-any-return]


def produce(
    *,
    count: Annotated[int | None, typer.Option(help=f"Records to send (default {_DEFAULT_COUNT}; of an access log: all).")] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Records per second, stamped with the clock; without it history is sent as fast as it goes."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same events; default: a new one.")] = None,
    config: Annotated[Path, typer.Option("--config", help="Settings file (YAML).")] = Path("conf/local.yaml"),
    ledger: Annotated[Path | None, typer.Option(help="Folder of the op ledger (default: <state_dir>/op_ledger).")] = None,
    start_time: Annotated[
        str | None, typer.Option(help="Start of the history, ISO 8601 with offset (default: so that it ends now).")
    ] = None,
    span: Annotated[float | None, typer.Option(help="Length of the history in seconds (default: 2000 events/s).")] = None,
    from_access_log: Annotated[
        Path | None, typer.Option(help="Send the lines of this access log (combined format, plain or gzip) as events.")
    ] = None,
    pseudonym_key: Annotated[
        str | None,
        typer.Option(
            envvar="LAKEHOUSE_PSEUDONYM_KEY",
            help="Secret of the pseudonyms for client addresses (default: one kept in <state_dir>/pseudonym.key).",
        ),
    ] = None,
    customers: Annotated[int, typer.Option(help="Customers to choose from, a few of them busy.", rich_help_panel="Mix")] = 1000,
    endpoints: Annotated[int, typer.Option(help="Endpoints to choose from, a few of them busy.", rich_help_panel="Mix")] = 40,
    late_ratio: Annotated[float, _ratio("--late-ratio", "events over 2 h late")] = _MIX.late,
    duplicate_ratio: Annotated[float, _ratio("--duplicate-ratio", "copies of earlier events")] = _MIX.duplicate,
    conflict_ratio: Annotated[float, _ratio("--conflict-ratio", "other payloads under a known event_id")] = _MIX.conflict,
    malformed_ratio: Annotated[float, _ratio("--malformed-ratio", "broken records of all kinds")] = _MIX.malformed,
    tombstone_ratio: Annotated[float, _ratio("--tombstone-ratio", "records without a value")] = _MIX.tombstone,
    out_of_order_ratio: Annotated[float, _ratio("--out-of-order-ratio", "events seconds to minutes old")] = _MIX.out_of_order,
    skew_ratio: Annotated[float, _ratio("--skew-ratio", "events of clocks that are wrong")] = _MIX.skew,
    unusual_ratio: Annotated[float, _ratio("--unusual-ratio", "valid events in unusual writing")] = _MIX.unusual,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Show a bar and a table, or one line at the end.")] = True,
) -> None:
    """Send generated events, or an access log, to Kafka (acks=all, idempotent) and write the op ledger."""
    settings = process_settings(config)
    setup_logging(settings.log)
    mix = Mix(
        late=late_ratio,
        duplicate=duplicate_ratio,
        conflict=conflict_ratio,
        malformed=malformed_ratio,
        tombstone=tombstone_ratio,
        out_of_order=out_of_order_ratio,
        skew=skew_ratio,
        unusual=unusual_ratio,
    )
    plan = ProducePlan(
        count=_DEFAULT_COUNT if count is None and from_access_log is None else count,
        seed=secrets.randbelow(2**32) if seed is None else seed,
        rate=rate,
        start_time=_instant(start_time),
        span_seconds=span,
        mix=mix,
        customers=customers,
        endpoints=endpoints,
        access_log=from_access_log,
        pseudonym_key=pseudonym_key.encode() if pseudonym_key else None,
    )
    folder = ledger or Path(settings.lake.state_dir) / "op_ledger"
    with _stop_on_signals() as stop, _bar(plan, shown=progress) as on_progress:
        summary = produce_events(settings, plan, folder, on_progress, stop=stop)
    console = Console()
    if progress:
        console.print(_table(summary, plan))
    typer.echo(_sentence(summary))
    if summary.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


@contextmanager
def _stop_on_signals() -> Iterator[Event]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into an event: an exception inside a delivery callback would lose acknowledgements."""
    stop = Event()
    before = on_stop_signals(lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(plan: ProducePlan, *, shown: bool) -> Iterator[Callable[[int], None] | None]:
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = plan.count if plan.access_log is None else count_lines(plan.access_log)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("records acknowledged", total=total)
        yield lambda acked: progress.update(task, completed=acked)


def _table(summary: ProduceSummary, plan: ProducePlan) -> Table:
    source = f"seed {plan.seed}" if plan.access_log is None else str(plan.access_log)
    table = Table(title=f"Sent to {summary.topic} ({source})", title_justify="left")
    table.add_column("kind")
    table.add_column("records", justify="right")
    for kind, records in sorted(summary.kinds.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(kind, f"{records:,}")
    return table


def _sentence(summary: ProduceSummary) -> str:
    unparsed = summary.kinds.get("access_log_unparsed", 0)
    return (
        f"{summary.acked:,} records acknowledged in {summary.seconds:.1f} s ({summary.events_per_second:,.0f}/s)"
        + (f", {unparsed:,} lines in another format (dead letters)" if unparsed else "")
        + (f", stopped early with {summary.failed:,} not acknowledged" if summary.interrupted else "")
        + f"; op ledger in {summary.ledger_dir} (run {summary.run_id})"
    )


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        msg = f"The start time `{text}` is not ISO 8601, expected such as 2026-01-28T10:00:00Z; correct it."
        raise UsageError(msg) from None
