"""`lakehouse rebuild`: build Silver or Gold anew, compare with the live tables, and swap."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pyspark.errors import PySparkException
from rich.console import Console
from rich.table import Table

from lakehouse.operations.rebuild import rebuild as rebuilding
from lakehouse.operations.rebuild import swap as rebuild_swap
from lakehouse.operations.rebuild.plan import RebuildPlan, plan_rebuild
from lakehouse.operations.rebuild.rebuild import Difference
from lakehouse.operations.rebuild.swap import Swapped
from pipelines.lake.logging import setup_logging
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import process_settings
from pipelines.runtime import jobs
from pipelines.runtime.failures import named_error
from pipelines.runtime.session import build_session

EXIT_DIFFERS = 1


def rebuild(
    layer: Annotated[str, typer.Argument(help="silver (from Bronze) or gold (from Silver).")],
    into: Annotated[str | None, typer.Option(help="Folder to build in; default: `<lake.root>.rebuild-<layer>`.")] = None,
    swap: Annotated[
        bool, typer.Option("--swap", help="Make the live tables equal to the rebuild; stop their streams first.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be read and written.")] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Rebuild LAYER in a folder of its own and compare it with the live tables; exit code 1 if they differ and stay so.

    The swap is one Delta commit in each live table: `lakehouse rollback` takes it back, and no checkpoint is invalidated.
    Issued bills and discarded records stay as they are, and so do columns that somebody added to a table. Dead letters whose
    records pass now are closed as replayed, replayed ones whose records do not are open again.
    """
    settings = process_settings(config)
    setup_logging(settings.log)
    console = Console()
    plan = plan_rebuild(settings, layer, into, swap=swap)
    show_plan(console, plan, swap=swap)
    if dry_run:
        console.print("Nothing was changed (--dry-run).")
        return
    found, swapped = _perform(settings, plan, swap=swap)
    show_result(console, plan, found, swapped)
    if swapped is None and not all(one.is_none for one in found):
        raise typer.Exit(EXIT_DIFFERS)


def _perform(settings: Settings, plan: RebuildPlan, *, swap: bool) -> tuple[list[Difference], Swapped | None]:
    started = datetime.now(UTC)
    with Console(stderr=True).status("starting Spark") as status:
        spark = build_session(settings, "rebuild")
        try:
            if not plan.is_done:
                rebuilding.build(spark, settings, plan, status.update, jobs.stop_on_signals())
            found = rebuilding.compare(spark, settings, plan, status.update)
            if not swap:
                return found, None
            status.update("swapping")
            swapped = rebuild_swap.swap(spark, settings, plan, found, run_id=uuid.uuid4().hex[:12], now=started)
            rebuilding.remove(plan.folder)
        except PySparkException as error:
            raise named_error(error) from None
    return found, swapped


def show_plan(console: Console, plan: RebuildPlan, *, swap: bool) -> None:
    """Say what is read and what will be written."""
    records = "unknown" if plan.records is None else f"{plan.records:,}"
    free = "unknown" if plan.free is None else f"{plan.free / 1e6:,.0f} MB"
    names = ", ".join(str(table) for table in plan.targets)
    console.print(f"Rebuild of {names} from version {plan.source_version} of {plan.source} ({records} rows)")
    state = "built already" if plan.is_done else f"about {plan.size / 1e6:,.0f} MB, {free} free"
    console.print(f"  in {plan.folder} ({state})", soft_wrap=True)
    if swap:
        for table, version in plan.versions.items():
            console.print(f"  then swapped: {table}, now at version {version}")


def show_result(console: Console, plan: RebuildPlan, found: Sequence[Difference], swapped: Swapped | None) -> None:
    """Print a row for each table compared, and what has to follow."""
    table = Table(title="Live and rebuilt rows, by key", title_justify="left")
    table.add_column("table", no_wrap=True)
    for heading in ("equal", "only live", "only rebuilt", "changed"):
        table.add_column(heading, justify="right")
    for one in found:
        counts = (one.equal, one.only_live, one.only_rebuilt, one.changed)
        table.add_row(str(one.table), *(f"{count:,}" for count in counts) if one.readable else ("not readable", "", "", ""))
    console.print(table)
    if swapped is None:
        same = all(one.is_none for one in found)
        hint = "the live tables are right" if same else f"`lakehouse rebuild {plan.layer} --swap` takes it over"
        console.print(f"The rebuild lies in {plan.folder}; {hint}.", soft_wrap=True)
        return
    for name, version in swapped.versions.items():
        # Over lost files nobody goes back.
        undo = "" if swapped.has_lost_files else f"; `lakehouse rollback {name} --to {version - 1}` undoes it"
        console.print(f"{name} is the rebuild now (version {version}{undo}).")
    if swapped.letters_added or swapped.letters_closed:
        console.print(f"{swapped.letters_added:,} dead letters were added, {swapped.letters_closed:,} changed state.")
    if swapped.letters_removed:
        console.print(f"{swapped.letters_removed:,} dead letters were removed that no record, or another letter, stands for.")
    if swapped.ledger_rows:
        console.print("The ledger has the rebuild now: its sums are what the tables hold.")
    if not swapped.versions:
        console.print("No row differed: the live tables were left as they are.")
    if plan.layer == "silver":
        _show_gold(console, swapped)


def _show_gold(console: Console, swapped: Swapped) -> None:
    if swapped.versions and not swapped.has_lost_files:
        console.print("Gold follows by its stream; reconcile closed days afterwards. All checkpoints stay valid.")
    if swapped.has_lost_files:
        console.print("Gold's stream cannot read what was lost from the change feed. Next, and then start it:")
        console.print("  lakehouse rebuild gold --swap")
        console.print("  lakehouse checkpoint rebuild gold")
