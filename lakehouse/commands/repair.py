"""`lakehouse repair`: fill what is missing where the source still has it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.lake.delta_log.opening import has_table
from pipelines.lake.errors import UsageError
from pipelines.lake.kafka.topic import TopicState, wait_for_topic
from pipelines.lake.logging import setup_logging
from pipelines.lake.settings import Settings, process_settings
from pipelines.lake.tables import BRONZE

if TYPE_CHECKING:
    from pipelines.bronze.gaps import Gap

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Fill what is missing where the source still has it.")


@app.callback()
def _root() -> None:
    """Repair has a subcommand for each layer."""


@app.command()
def bronze(
    dry_run: Annotated[
        bool, typer.Option(help="Say which offsets are missing and what would be done, and write nothing.")
    ] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Fill the holes in Bronze's offsets from Kafka; record those that Kafka cannot fill, with their cause."""
    from pipelines.bronze.gaps import fillable, find_gaps, lost  # noqa: PLC0415 - Spark: not for --help

    settings = process_settings(config)
    setup_logging(settings.log)
    _require_bronze(settings)
    topic = wait_for_topic(settings)
    gaps = find_gaps(settings, topic)
    can, cannot = fillable(gaps, topic.start), lost(gaps, topic.start)
    _say(f"{_count(gaps)} missing in Bronze, of which Kafka may still have {_count(can)} and has deleted {_count(cannot)}")
    for gap in gaps:
        _say(f"  {gap}")
    if gaps and not dry_run:
        _repair(settings, topic, can, cannot)


def _repair(settings: Settings, topic: TopicState, can: list[Gap], cannot: list[Gap]) -> None:
    from pipelines.bronze.gaps import NO_RECORD, RETENTION, find_gaps, record_gaps, within  # noqa: PLC0415

    if can:
        # Raises where it is stopped: what was not asked for yet is not known to have no record.
        _fill(settings, topic, can)
    # Asked for and not there: transaction markers, or records that compaction took.
    empty = dict.fromkeys(within(find_gaps(settings, topic), can), NO_RECORD) if can else {}
    record_gaps(settings, topic.topic, {**empty, **dict.fromkeys(cannot, RETENTION)})
    filled = sum(map(len, can)) - sum(map(len, empty))
    _say(
        f"{filled:,} offsets filled; recorded in ops.known_gaps: {_count(list(empty))} without a record in Kafka, "
        f"{_count(cannot)} lost to retention"
    )
    if cannot:
        _say(
            "what is lost came to no customer's bill; see playbooks/retention-overrun.md, and ask the producers to send it again"
        )


def _fill(settings: Settings, topic: TopicState, gaps: list[Gap]) -> None:
    from pipelines.bronze.bronze_ingestion import fill  # noqa: PLC0415 - Spark
    from pipelines.bronze.gaps import batches_of  # noqa: PLC0415
    from pipelines.runtime import jobs  # noqa: PLC0415
    from pipelines.runtime.replay import Plan  # noqa: PLC0415
    from pipelines.runtime.session import build_session  # noqa: PLC0415

    plan = Plan(batches_of(gaps), sum(map(len, gaps)))
    spark = build_session(settings, "repair")
    try:
        path = f"{settings.lake.checkpoints.rstrip('/')}/bronze/repair-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        fill(spark, settings, topic, plan, checkpoint_path=path, what=f"repair {plan}", stop=jobs.stop_on_signals())
    finally:
        spark.stop()


def _require_bronze(settings: Settings) -> None:
    path = BRONZE.path(settings)
    if not has_table(path):
        msg = f"There is no Bronze table at {path}, so nothing to repair; run the Bronze job first, or correct `lake.root`."
        raise UsageError(msg)


def _count(gaps: list[Gap]) -> str:
    offsets = sum(map(len, gaps))
    return f"{offsets:,} offsets in {len(gaps)} holes" if offsets else "none"


def _say(text: str) -> None:
    typer.echo(text, file=sys.stdout)
