"""A Spark session on the lake's tables by name, for commands that people type."""

from __future__ import annotations

import os
import time

from pyspark.sql import SparkSession

from pipelines.lake.access import require_lake
from pipelines.lake.settings import Settings
from pipelines.runtime.delta import register_tables
from pipelines.runtime.session import build_session


def open_tables(settings: Settings, app_name: str) -> SparkSession:
    """Build the session and register the tables that exist; raises UsageError where there is none."""
    require_lake(settings)
    spark = build_session(settings, app_name)
    # Spark hands timestamps to Python in the zone of the process; the lake's are UTC.
    os.environ["TZ"] = "UTC"
    time.tzset()
    if settings.environment != "local" or settings.log.format == "json":
        # A wrong statement is answered with a sentence; a log on the console would put its stack trace beside it.
        spark.sparkContext.setLogLevel("OFF")
    register_tables(spark, settings)
    return spark
