"""`lakehouse checkpoint`: the streams' checkpoints for people; no JVM, on the local disk and on S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lakehouse.commands.checkpoint_tables import show_details, show_list, show_verdict
from lakehouse.operations.checkpoints.copying import CopyPlan, plan_copy, write_copy
from lakehouse.operations.checkpoints.details import checkpoint_details
from lakehouse.operations.checkpoints.listing import list_checkpoints
from lakehouse.operations.checkpoints.rebuild import plan_rebuild, write_rebuild
from lakehouse.operations.checkpoints.rewind import plan_rewind
from lakehouse.operations.checkpoints.topic import ask_aside
from lakehouse.operations.checkpoints.verify import verify_checkpoint
from pipelines.lake.checkpoint.generations import newest_generation_path
from pipelines.lake.errors import EXIT_FAILURE, UnreadableError
from pipelines.lake.ledger.known_gaps import RETENTION, Gap, record_gaps
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import process_settings
from pipelines.lake.storage.backends import open_storage

app = typer.Typer(
    help="List, show, verify, copy, rewind and rebuild the checkpoints of the streams.",
    no_args_is_help=True,
    add_completion=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", help="Settings file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]
PathArgument = Annotated[
    str,
    typer.Argument(help="Folder of the checkpoint, an s3:// URI, or a job: the checkpoint that it takes.", metavar="PATH|JOB"),
]
SourceArgument = Annotated[str, typer.Argument(help="Checkpoint to read: a folder or an s3:// URI.", metavar="SRC")]
TargetArgument = Annotated[
    str, typer.Argument(help="Where to write: a folder or an s3:// URI where nothing lies.", metavar="DST")
]
_CONFIG = Path("conf/local.yaml")


@app.command("list")
def list_(as_json: JsonOption = False, config: ConfigOption = _CONFIG) -> None:
    """Show all checkpoints below `lake.checkpoints`: how far, how old, how far behind, and what the ledger says.

    Exit code 1: one of them, or a table, could not be read; the rest is shown.
    """
    settings = _settings(config)
    asked = ask_aside(settings)  # before the other imports, which take half a second

    found, kafka = list_checkpoints(settings, asked)
    if as_json:
        _print({"root": settings.lake.checkpoints, "kafka": kafka, "checkpoints": [one.as_dict() for one in found]})
    else:
        show_list(settings.lake.checkpoints, found, kafka)
    is_unread = isinstance(asked.result(), UnreadableError) or any(one.is_unread for one in found)
    raise typer.Exit(EXIT_FAILURE if is_unread else 0)


@app.command()
def show(
    path: PathArgument,
    batch: Annotated[int | None, typer.Option(help="Only this batch.", min=0)] = None,
    last: Annotated[int, typer.Option(help="Show this many of the last batches.", min=1)] = 5,
    as_json: JsonOption = False,
    config: ConfigOption = _CONFIG,
) -> None:
    """Show the offsets or versions of each batch, whether it is committed, and what tables and ledger say of it."""
    settings = _settings(config)
    found = checkpoint_details(settings, open_storage(_path(settings, path)), batch=batch, last=last)
    if as_json:
        _print(found.as_dict())
    else:
        show_details(found)
    raise typer.Exit(EXIT_FAILURE if found.lake_problem else 0)


@app.command()
def verify(path: PathArgument, as_json: JsonOption = False, config: ConfigOption = _CONFIG) -> None:
    """Say whether a checkpoint is sound, alone and beside tables, ledger and source; exit code 1 if it is not."""
    settings = _settings(config)
    asked = ask_aside(settings)  # before the other imports, which take half a second

    verdict = verify_checkpoint(settings, open_storage(_path(settings, path)), asked)
    if as_json:
        _print(verdict.as_dict())
    else:
        show_verdict(verdict)
    raise typer.Exit(0 if verdict.is_sound else 1)


@app.command()
def copy(
    source: SourceArgument,
    target: TargetArgument,
    new_generation: Annotated[
        bool, typer.Option("--new-generation", help="Give the copy a new generation and query id, to go on from it.")
    ] = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = _CONFIG,
) -> None:
    """Copy a checkpoint file by file, also between disk and S3: a backup, or with a new generation one to go on from."""
    plan = plan_copy(_settings(config), open_storage(source), open_storage(target), new_generation=new_generation)
    _say(dry_run, f"{_counts(plan)} from {source} to {target}, {_generation(plan)}")
    if not dry_run:
        write_copy(plan)
        typer.echo("Done." if plan.generation is None else f"Done. Start the job with --checkpoint-path {target}")


@app.command()
def rewind(
    source: SourceArgument,
    target: TargetArgument,
    to_batch: Annotated[int, typer.Option(help="Last batch that the new checkpoint holds.", min=0)],
    dry_run: DryRunOption = False,
    config: ConfigOption = _CONFIG,
) -> None:
    """Copy a checkpoint up to a batch under a new generation, so that its job reads what came after it again."""
    plan = plan_rewind(_settings(config), open_storage(source), open_storage(target), to_batch)
    records = "an unknown number of records" if plan.records_again is None else f"{plan.records_again:,} records"
    _say(dry_run, f"{_counts(plan.copy)} from {source} to {target}, {_generation(plan.copy)}")
    typer.echo(f"The job {plan.job} will read {len(plan.batches_again):,} batches ({records}) again; what the tables have stays.")
    if not dry_run:
        write_copy(plan.copy)
        typer.echo(f"Done. Stop the job on {source} and start it with --checkpoint-path {target}")


@app.command()
def rebuild(
    job: Annotated[str, typer.Argument(help="Job whose checkpoint is lost: bronze, silver or gold.", metavar="JOB")],
    target: Annotated[
        str | None, typer.Argument(help="Where to write; default: the next free g<n> of the job.", metavar="[DST]")
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on although Kafka no longer holds some offsets that nobody read.")
    ] = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = _CONFIG,
) -> None:
    """Make a new checkpoint from what the tables hold, for one that is lost or broken."""
    settings = _settings(config)
    plan = plan_rebuild(settings, job, open_storage(target) if target else None, accept_loss=accept_loss)
    _say(
        dry_run, f"1 file to {plan.target.path}, generation {plan.marker.generation}, starting at {plan.marker.starting or 'all'}"
    )
    typer.echo(f"The job {job} will read about {plan.to_read:,} records; what the tables have of them stays.")
    for lost in plan.lost:
        typer.echo(f"Lost for good: {lost}")
    if not dry_run:
        # First: a loss that was accepted is on record before anybody goes on from it.
        gaps = {Gap(lost.partition, lost.first, lost.last): RETENTION for lost in plan.lost}
        record_gaps(settings, settings.kafka.topic, gaps)
        write_rebuild(plan)
        typer.echo(f"Done. Start the job with --checkpoint-path {plan.target.path}")


def _settings(config: Path) -> Settings:
    return process_settings(config)


def _path(settings: Settings, given: str) -> str:
    from pipelines.lake.job_tables import JOBS  # noqa: PLC0415

    return newest_generation_path(settings, given) if given in JOBS else given


def _counts(plan: CopyPlan) -> str:
    return f"{plan.files:,} files ({plan.bytes:,} bytes)"


def _generation(plan: CopyPlan) -> str:
    return f"generation {plan.generation}" if plan.generation else "as they are"


def _say(dry_run: bool, what: str) -> None:
    typer.echo(f"{'Would write' if dry_run else 'Writing'} {what}")


def _print(tree: dict[str, Any]) -> None:
    typer.echo(json.dumps(tree, indent=1, default=str))
