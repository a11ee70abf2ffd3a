"""A Spark session on the lake's tables by name, for commands that people type."""

from __future__ import annotations

import os
import time

from pyspark.sql import SparkSession

from pipelines.common.delta import register_tables
from pipelines.common.errors import UsageError
from pipelines.common.opening import has_table
from pipelines.common.session import build_session
from pipelines.common.settings import Settings
from pipelines.common.tables import ALL_TABLES


def open_tables(settings: Settings, app_name: str) -> SparkSession:
    """Build the session and register the tables that exist; raises UsageError where there is none."""
    if not any([has_table(name.path(settings)) for name in ALL_TABLES]):
        msg = f"There is no lake at {settings.lake.root} yet; `lakehouse demo` makes one, or correct `lake.root`."
        raise UsageError(msg)
    spark = build_session(settings, app_name)
    # Spark hands timestamps to Python in the zone of the process; the lake's are UTC.
    os.environ["TZ"] = "UTC"
    time.tzset()
    if settings.environment != "local" or settings.log.format == "json":
        # A wrong statement is answered with a sentence; a log on the console would put its stack trace beside it.
        spark.sparkContext.setLogLevel("OFF")
    register_tables(spark, settings)
    return spark
