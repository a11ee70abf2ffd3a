"""`lakehouse demo`: everything on one laptop, from one command."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pyspark.errors import PySparkException
from rich.console import Console

from lakehouse.local import demo_report as report
from lakehouse.local.demo import Demo, DemoResult
from lakehouse.local.demo_figures import read_bills, read_dead_letters
from lakehouse.local.demo_folder import DemoFolder, shown
from lakehouse.local.demo_process import Interrupted, Work, children, end_children, standard_error_to
from lakehouse.local.demo_screen import Screen
from lakehouse.local.kafka_broker import use_broker
from pipelines.lake.errors import EXIT_INTERRUPTED, LakehouseError, UsageError
from pipelines.lake.logging import setup_logging
from pipelines.lake.resources import SPARK_JARS
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import process_settings
from pipelines.runtime.failures import named_error


def demo(
    events: Annotated[int, typer.Option(help="Records to produce.", min=1)] = 100_000,
    keep: Annotated[
        bool, typer.Option("--keep", help="Add to the lake of the last demo instead of starting a fresh one.")
    ] = False,
    folder: Annotated[Path | None, typer.Option(help="Folder of the demo's lake (default: <state_dir>/demo).")] = None,
    config: Annotated[Path, typer.Option("--config", help="Settings file (YAML).")] = Path("conf/local.yaml"),
) -> None:
    """Produce events, run Bronze, Silver, Gold and the batch, and show that every record is accounted for."""
    settings = process_settings(config)
    if settings.environment != "local":
        msg = f"The settings in {config} are of environment {settings.environment}, a demo is for a laptop; use conf/local.yaml."
        raise UsageError(msg)
    place = DemoFolder((folder or Path(settings.lake.state_dir) / "demo").resolve())
    with place.claim():
        moved = place.prepare(settings, keep=keep)
        fine = _run(Console(highlight=False), moved, place, events=events, keep=keep)
    raise typer.Exit(0 if fine else 1)


def _run(console: Console, settings: Settings, place: DemoFolder, *, events: int, keep: bool) -> bool:
    if not SPARK_JARS.is_dir():
        msg = (
            f"The folder {SPARK_JARS} of jars is missing; run `make setup`, which resolves them with Maven "
            "(playbooks/environment.md)."
        )
        raise LakehouseError(msg)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` asks for that
            signal.signal(number, signal.default_int_handler)
    console.print(f"{events:,} API-usage events, from Kafka to a closed bill, in {shown(place.path)}\n", soft_wrap=True)
    try:
        with ExitStack() as stack:
            stack.enter_context(standard_error_to(place.spark_log))
            screen = stack.enter_context(Screen(console))
            with screen.stage("Kafka") as stage:
                broker = stack.enter_context(use_broker(place.path))
                stage.say(f"one broker at {broker.bootstrap_servers}")
            before = children()
            stack.callback(lambda: end_children(children() - before))
            _log_to(place, settings)

            work: Work[DemoResult] = Work(Demo(settings, place, screen, events, keep).run)
            result = work.run(on_drain=lambda: screen.say("Stopping after the batch under way; Ctrl-C again stops at once."))
    except Interrupted as interrupted:
        if not interrupted.idle:
            _leave_thread()
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except PySparkException as error:
        msg = f"{named_error(error)} (logs: {place.log}, {place.spark_log})"
        raise LakehouseError(msg) from None
    _report(console, settings, place, result)
    return result.is_fine


def _report(console: Console, settings: Settings, place: DemoFolder, result: DemoResult) -> None:
    console.print()
    report.show_conservation(console, result.conservation, result.invariants)
    report.show_dead_letters(console, read_dead_letters(settings))
    if result.day is not None and result.outcome is not None:
        report.show_bills(console, result.day, read_bills(settings, result.day), result.outcome)
    report.show_checks(console, result.checks)
    report.show_next(console, place)


def _log_to(place: DemoFolder, settings: Settings) -> None:
    """Send the jobs' logs to a file: the screen shows the stages."""
    setup_logging(settings.log)
    file = place.log.open("a", encoding="utf-8")
    for handler in logging.getLogger("lakehouse").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(file)


def _leave_thread() -> NoReturn:
    """End the process around the work's thread, which hangs in a call that nobody will answer; all else is cleaned up."""
    sys.stdout.flush()
    sys.stderr.write("lakehouse: interrupted\n")
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)
