"""All streams in one driver: live until stopped, or each to the end of what is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pyspark.sql import SparkSession
from pyspark.sql.streaming import StreamingQuery

from lakehouse.operations.supervisor import SupervisedStream, first_error
from pipelines.bronze import bronze_ingestion
from pipelines.gold import gold_aggregation
from pipelines.lake.checkpoint.failures import BatchFailures
from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.logging import Log
from pipelines.lake.settings import Settings
from pipelines.runtime.stream_life import AVAILABLE_NOW
from pipelines.silver import silver_processing

_LOG = Log("up")

STREAMS: dict[str, Callable[..., StreamingQuery]] = {
    "bronze": bronze_ingestion.run,
    "silver": silver_processing.run,
    "gold": gold_aggregation.run,
}
"""The streams in the order of the data."""


def run_to_end(spark: SparkSession, settings: Settings, names: Sequence[str], stop: threading.Event) -> None:
    """Run each stream with `available-now`, one after the other, so that the next one finds all that the last one wrote.

    A stream that fails and may recover is started again. Raises BreakerOpenError where Silver is held.
    """
    for name in names:
        if stop.is_set():
            return
        stream = _supervised(spark, settings, name, stop, trigger=AVAILABLE_NOW)
        stream.begin()
        stream.run_to_end()


def run_live(spark: SparkSession, settings: Settings, names: Sequence[str], stop: threading.Event) -> None:
    """Run the streams side by side until `stop` is set; one that fails is started again while the others run on.

    Raises the named error of a stream that cannot go on, when all others are drained: a supervisor starts the process again.
    """
    halt = threading.Event()
    streams: list[SupervisedStream] = []
    watchers: list[threading.Thread] = []
    try:
        for name in names:
            streams.append(_supervised(spark, settings, name, halt))
            streams[-1].begin()
            watchers.append(threading.Thread(target=streams[-1].watch, name=f"watch-{name}", daemon=True))
            watchers[-1].start()
        _LOG.info("streams run", streams=",".join(names))
        while not stop.wait(0.5) and not halt.is_set():
            pass
    finally:
        halt.set()
        for watcher in watchers:
            watcher.join()
    error = first_error(streams)
    if error is not None:
        raise error


def _supervised(
    spark: SparkSession, settings: Settings, name: str, halt: threading.Event, trigger: str | None = None
) -> SupervisedStream:
    failures = BatchFailures(name, checkpoint_path_of(settings, name, None))
    options = {} if trigger is None else {"trigger": trigger}
    return SupervisedStream(name, lambda: STREAMS[name](spark, settings, **options), settings, failures, halt)
