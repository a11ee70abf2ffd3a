"""`lakehouse up`: all streams in one driver until stopped."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.operations.streams import STREAMS, run_live, run_to_end
from pipelines.lake.access import require_access
from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.errors import UsageError
from pipelines.lake.logging import setup_logging
from pipelines.lake.settings_sources import process_settings
from pipelines.lake.traces import keep_traces_in
from pipelines.runtime import jobs
from pipelines.runtime.failures import OUTSIDE_ERRORS, named_error
from pipelines.runtime.session import build_session
from pipelines.runtime.stream_life import AVAILABLE_NOW


def up(
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
    only: Annotated[str, typer.Option(help="Streams to run, of bronze,silver,gold.")] = "bronze,silver,gold",
    trigger: Annotated[
        str | None, typer.Option(help="`available-now`: each stream to the end of what is there, then exit.")
    ] = None,
) -> None:
    """Run all streams in one driver until Ctrl-C or SIGTERM, which drain the running batches."""
    # Spark takes a second to import: not for --help.

    settings = process_settings(config)
    setup_logging(settings.log)
    keep_traces_in(settings.lake.state_dir)
    names = [name.strip() for name in only.split(",")]
    unknown = [name for name in names if name not in STREAMS]
    if unknown:
        msg = f"--only names {', '.join(unknown)}, expected some of {', '.join(STREAMS)}; correct it."
        raise UsageError(msg)
    if trigger not in (None, AVAILABLE_NOW):
        msg = (
            f"--trigger is {trigger}, expected available-now or nothing; intervals stand in the settings (`bronze.trigger`, ...)."
        )
        raise UsageError(msg)
    for name in names:
        require_access(settings, name, checkpoint_path_of(settings, name, None))
    stop = jobs.stop_on_signals()
    spark = build_session(settings, "up")
    try:
        (run_live if trigger is None else run_to_end)(spark, settings, names, stop)
    except OUTSIDE_ERRORS as error:
        raise named_error(error) from None
    finally:
        with suppress(*OUTSIDE_ERRORS):  # a JVM that is gone cannot be stopped: the error above says it
            spark.stop()
