"""All streams in one driver: live until stopped, or each to the end of what is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pyspark.sql import SparkSession
from pyspark.sql.streaming import StreamingQuery

from pipelines.bronze import bronze_ingestion
from pipelines.common import jobs
from pipelines.common.logging import Log
from pipelines.common.settings import Settings
from pipelines.gold import gold_aggregation
from pipelines.silver import silver_processing

_LOG = Log("up")

STREAMS: dict[str, Callable[..., StreamingQuery]] = {
    "bronze": bronze_ingestion.run,
    "silver": silver_processing.run,
    "gold": gold_aggregation.run,
}
"""The streams in the order of the data."""


def run_to_end(spark: SparkSession, settings: Settings, names: Sequence[str], stop: threading.Event) -> None:
    """Run each stream with `available-now`, one after the other, so that the next one finds all that the last one wrote."""
    for name in names:
        if stop.is_set():
            return
        jobs.await_query(STREAMS[name](spark, settings, trigger=jobs.AVAILABLE_NOW), stop)


def run_live(spark: SparkSession, settings: Settings, names: Sequence[str], stop: threading.Event) -> None:
    """Run the streams side by side until `stop` is set or one fails; then drain the others.

    Raises what made a stream fail: a supervisor starts the process again.
    """
    queries: list[StreamingQuery] = []
    try:
        queries.extend(STREAMS[name](spark, settings) for name in names)
        _LOG.info("streams run", streams=",".join(names))
        while not stop.wait(0.5) and all(query.isActive for query in queries):
            pass
    finally:
        for query in queries:
            if query.isActive:
                jobs.drain(query)
    for query in queries:
        failure = query.exception()
        if failure is not None:
            raise failure
