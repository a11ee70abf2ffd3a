"""`lakehouse rollback`: take a bad publish back by time travel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pyspark.errors import PySparkException
from rich.console import Console

from lakehouse.operations.rollback.plan import RollbackPlan, plan_rollback
from lakehouse.operations.rollback.rollback import Rolled, roll_back
from pipelines.lake.errors import EXIT_REFUSED
from pipelines.lake.logging import setup_logging
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import process_settings
from pipelines.runtime import jobs
from pipelines.runtime.failures import named_error
from pipelines.runtime.session import build_session


def rollback(  # noqa: PLR0917 - typer passes by name
    table: Annotated[
        str, typer.Argument(help="gold.api_usage_hourly, gold.api_usage_daily, silver.api_usage_events or its DLQ.")
    ],
    to: Annotated[int, typer.Option(help="Version to restore; `DESCRIBE HISTORY` lists them.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the table's history.")] = "",
    repair: Annotated[
        bool, typer.Option("--repair", help="Also do what has to follow: read the records again, or recompute the days.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Restore TABLE to an older version. Stop the streams that write to it first.

    A checkpoint that had written to Silver before is refused from then on: its stream would never read again what was
    taken back. Bronze, issued adjustments and the ops tables are never rolled back. Exit code 5: the table is restored, and
    the gate before the bill refused to have a closed day adjusted.
    """
    settings = process_settings(config)
    setup_logging(settings.log)
    console = Console()
    plan = plan_rollback(settings, table, to)
    show_plan(console, plan)
    if dry_run:
        console.print("Nothing was changed (--dry-run).")
        return
    done = _perform(settings, plan, reason, repair=repair)
    show_done(console, settings, plan, done, repaired=repair)
    if done.refused:
        raise typer.Exit(EXIT_REFUSED)


def _perform(settings: Settings, plan: RollbackPlan, reason: str, *, repair: bool) -> Rolled:
    with Console(stderr=True).status("starting Spark") as status:
        spark = build_session(settings, "rollback")
        stop = jobs.stop_on_signals()
        try:
            return roll_back(spark, settings, plan, reason=reason, repair=repair, progress=status.update, stop=stop)
        except PySparkException as error:
            raise named_error(error) from None


def show_plan(console: Console, plan: RollbackPlan) -> None:
    """Say what the rollback takes back, in counts."""
    if plan.done_at is not None:
        console.print(f"{plan.table} was restored to version {plan.to} before (version {plan.done_at}); the rest is completed.")
    console.print(f"{plan.table}: version {plan.version} ({_n(plan.rows)} rows) -> {plan.to} ({_n(plan.rows_then)} rows)")
    console.print(f"  version {plan.to} was committed at {plan.committed_at:%Y-%m-%d %H:%M:%S} UTC")
    shown = ", ".join(plan.commits[-5:])
    console.print(f"  {len(plan.commits)} commits are taken back: {'..., ' if len(plan.commits) > 5 else ''}{shown}")
    if plan.bronze_version is not None:
        read = sum(row.rows_read for row in plan.batches)
        console.print(f"  {len(plan.batches)} batches of {len(plan.generations)} generations, which read {read:,} records")
        console.print(f"  their records are read again from version {plan.bronze_version} of Bronze on")


def show_done(console: Console, settings: Settings, plan: RollbackPlan, done: Rolled, *, repaired: bool) -> None:
    """Say what was done and what has to follow."""
    console.print(f"{plan.table} is at version {done.version}, which is version {plan.to} again.")
    if plan.bronze_version is None:
        _show_days(console, done, repaired=repaired)
        return
    if done.reopened:
        console.print(
            f"  {done.reopened:,} replayed dead letters are open again: `lakehouse dlq replay` brings their events back."
        )
    known = f", of the ledger's generations {', '.join(plan.generations)}" if plan.generations else ""
    console.print(f"  Silver's checkpoints that were made before are unusable from now on{known}: they are refused.")
    if done.checkpoint is not None:
        console.print(f"Silver has read the records again; go on with --checkpoint-path {done.checkpoint.path}")
        return
    console.print("Next: read the records again with a new generation of Silver, before the daily batch runs:")
    console.print(f"  lakehouse rollback {plan.table} --to {plan.to} --repair", soft_wrap=True)


def _show_days(console: Console, done: Rolled, *, repaired: bool) -> None:
    days, refused = [str(day) for day in done.days], [str(day) for day in done.refused]
    if not days:
        console.print("  No row differs, so nothing has to follow.")
    elif repaired:
        _show_recomputed(console, [day for day in days if day not in refused], refused)
    else:
        console.print(f"Next: recompute the {len(days)} days that differ; the stream writes only hours that change again:")
        for day in days:
            console.print(f"  python batch/reconcile_gold.py --date {day}", soft_wrap=True)


def _show_recomputed(console: Console, days: list[str], refused: list[str]) -> None:
    if days:
        console.print(f"  {len(days)} days were recomputed from Silver: {', '.join(days)}")
    if not refused:
        return
    console.print(
        f"  {len(refused)} days were not: the gate before the bill refused them ({', '.join(refused)}), so they are as the "
        "restored version has them (playbooks/quality-gate.md)."
    )
    console.print("Next: see what does not hold, mend it, and run the daily batch, or publish with --override REASON:")
    for day in refused:
        console.print(f"  lakehouse quality show --date {day}", soft_wrap=True)
        console.print(f"  python batch/reconcile_gold.py --date {day}", soft_wrap=True)


def _n(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"
