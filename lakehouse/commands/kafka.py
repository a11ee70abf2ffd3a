"""`lakehouse kafka start|stop|status`: the embedded broker for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lakehouse.local.kafka_admin import TopicOffsets, ensure_topic, topic_offsets
from lakehouse.local.kafka_broker import BrokerRunningError, EmbeddedBroker
from lakehouse.local.kafka_state import BrokerState, running_broker
from pipelines.lake.errors import EXIT_FAILURE, UsageError
from pipelines.lake.settings import EMBEDDED, Settings
from pipelines.lake.settings_sources import process_settings

app = typer.Typer(help="Start, stop and look at the embedded Kafka broker.", no_args_is_help=True, add_completion=False)

ConfigOption = Annotated[Path, typer.Option("--config", help="Settings file (YAML).")]
_DEFAULT_CONFIG = Path("conf/local.yaml")
PATIENCE_SECONDS = 1.5
"""A command that only looks says within two seconds that nobody answers."""


@app.command()
def start(config: ConfigOption = _DEFAULT_CONFIG) -> None:
    """Start the broker in the background and make the topic; a running one is left alone."""
    settings = _embedded(config)
    state_dir = Path(settings.lake.state_dir)
    try:
        broker, word = EmbeddedBroker(state_dir).start(detach=True), "started"
    except BrokerRunningError:
        broker, word = EmbeddedBroker.attach(state_dir), "is running already"
    partitions = ensure_topic(broker.bootstrap_servers, settings.kafka.topic, settings.kafka.partitions)
    typer.echo(f"Kafka {word} at {broker.bootstrap_servers} (pid {broker.state.pid}), log {broker.state.log}")
    typer.echo(f"Topic {settings.kafka.topic}, {partitions} partitions")


@app.command()
def stop(config: ConfigOption = _DEFAULT_CONFIG) -> None:
    """Stop the broker; topics and data stay for the next start."""
    settings = _embedded(config)
    state = running_broker(Path(settings.lake.state_dir))
    if state is None:
        typer.echo("Kafka was not running.")
        return
    EmbeddedBroker.attach(Path(settings.lake.state_dir)).stop()
    typer.echo(f"Kafka stopped (pid {state.pid}); its data stay in {Path(state.log).parent}")


@app.command()
def status(
    config: ConfigOption = _DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show address, process and topics with their end offsets; exit code 1 when no broker answers."""
    settings = process_settings(config)
    state = None
    bootstrap_servers = settings.kafka.bootstrap_servers
    if bootstrap_servers == EMBEDDED:
        state = running_broker(Path(settings.lake.state_dir))
        if state is None:
            typer.echo("Kafka is not running; start it with `lakehouse kafka start`.", err=True)
            raise typer.Exit(EXIT_FAILURE)
        bootstrap_servers = state.bootstrap_servers
    options = settings.kafka.options if state is None else {}
    topics = topic_offsets(bootstrap_servers, options, timeout=PATIENCE_SECONDS)
    if as_json:
        broker = {"bootstrap_servers": bootstrap_servers, **(asdict(state) if state else {})}
        typer.echo(json.dumps({**broker, "topics": {topic.topic: topic.end_offsets for topic in topics}}))
        return
    _show(bootstrap_servers, state, topics)


def _show(bootstrap_servers: str, state: BrokerState | None, topics: list[TopicOffsets]) -> None:
    process = f" (pid {state.pid}), log {state.log}" if state else ""
    typer.echo(f"Kafka answers at {bootstrap_servers}{process}")
    table = Table("topic", "partitions", "end offsets")
    for topic in topics:
        ends = " ".join(f"{partition}:{offset}" for partition, offset in topic.end_offsets.items())
        table.add_row(topic.topic, str(len(topic.end_offsets)), ends)
    Console().print(table)


def _embedded(config: Path) -> Settings:
    settings = process_settings(config)
    if settings.kafka.bootstrap_servers != EMBEDDED:
        msg = (
            f"Setting `kafka.bootstrap_servers` in {config} is {settings.kafka.bootstrap_servers}, a broker outside; "
            f"this command rules the embedded one only: set it to `{EMBEDDED}`, or use that broker's own tools."
        )
        raise UsageError(msg)
    return settings
