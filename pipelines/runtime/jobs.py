"""Runs a job from its command line: settings, logs, signals, exit codes."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Sequence

from pyspark.errors.exceptions.base import PySparkException
from pyspark.sql.streaming import StreamingQuery

from pipelines.lake.access import require_access
from pipelines.lake.checkpoint.failures import BatchFailures
from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.errors import EXIT_INTERRUPTED, LakehouseError, UsageError
from pipelines.lake.logging import Log, setup_logging
from pipelines.lake.process import on_stop_signals, say_last
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import process_settings
from pipelines.lake.traces import keep_traces_in
from pipelines.runtime.failures import named_error
from pipelines.runtime.flags import is_bounded, job_parser
from pipelines.runtime.guards.cause import cause_in_tables
from pipelines.runtime.session import build_session
from pipelines.runtime.stream_life import await_query

_LOG = Log("job")


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM, SIGINT and SIGHUP set: the running batch is drained, then the process ends."""
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        _LOG.info("stopping after the running batch", signal=signal.Signals(number).name)
        stop.set()

    on_stop_signals(ask)
    return stop


def run_stream(
    run: Callable[..., StreamingQuery],
    replay: Callable[..., None],
    name: str,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> int:
    """Run a streaming job from the command line until it ends or a signal drains it; return the exit code.

    Flags that bound what is read make it a replay. Flags that the job added to the parser are passed on to both. A failed
    batch ends the process, which Kubernetes starts again; the count of failures lies beside the checkpoint.
    """
    own = vars(job_parser("").parse_args([])).keys()

    def job(args: argparse.Namespace, settings: Settings) -> None:
        stop = stop_on_signals()
        extra = {key: value for key, value in vars(args).items() if key not in own}
        bounded = is_bounded(args)
        if bounded and not (args.checkpoint_path or args.dry_run):
            msg = "A replay needs a checkpoint of its own, and --checkpoint-path is missing; give a new path."
            raise UsageError(msg)
        if args.dry_run and not bounded:
            msg = (
                "--dry-run is for a bounded replay, and a start without an end reads all that comes; to see what it would read "
                "up to now, give --ending-offsets (`lakehouse status` shows Kafka's), --from-date or --to-date with it, or leave "
                "it out."
            )
            raise UsageError(msg)
        if not args.dry_run:
            require_access(settings, name, checkpoint_path_of(settings, name, args.checkpoint_path))
        spark = build_session(settings, name)
        if bounded:
            replay(spark, settings, args, stop, **extra)
            return
        query = run(
            spark,
            settings,
            checkpoint_path=args.checkpoint_path,
            trigger=args.trigger,
            starting_offsets=args.starting_offsets,
            **extra,
        )
        try:
            await_query(query, stop)
        except PySparkException as error:
            path = checkpoint_path_of(settings, name, args.checkpoint_path)
            failure = BatchFailures(name, path).note(error)
            said = None if failure.own is not None else cause_in_tables(settings, name, path)
            raise (said or failure.error()) from error

    return run_job(job, parser, argv)


def run_job(
    main: Callable[[argparse.Namespace, Settings], int | None], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Run a job's `main`: settings, logs, one sentence and an exit code for every error that is the user's or the world's."""
    args = parser.parse_args(argv)
    try:
        settings = process_settings(args.config)
        setup_logging(settings.log)
        keep_traces_in(settings.lake.state_dir)
        return main(args, settings) or 0
    except LakehouseError as error:
        say_last(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say_last("stopped")
        return EXIT_INTERRUPTED
    except Exception as error:
        named = named_error(error)
        say_last(f"error: {named}")
        return named.exit_code
