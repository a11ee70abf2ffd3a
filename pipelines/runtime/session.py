"""The Spark session that every job uses: Delta, the event functions, and the lake's tables by name."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from pipelines.lake.errors import LakehouseError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.resources import SPARK_JARS
from pipelines.lake.settings import Settings
from pipelines.lake.surroundings import current_umask
from pipelines.runtime.jvm import log_options, prepare_jvm

_JVM = (
    "-XX:+ExitOnOutOfMemoryError -XX:+UseParallelGC"
    " -XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=20000 -XX:Tier4CompileThreshold=100000"
)
"""A JVM without memory ends at once: whichever thread it was that asked, none lives on half dead and holds the lease.

Batches of short-lived rows in a small heap: without G1's barriers and threads the chain needs a tenth less CPU time.

Plans are made some thousand times in a driver's life, rows are read by the million: only the latter is worth the
optimising compiler, which on two cores takes a third of the first minutes' time otherwise."""
_UNIQUE = (
    "_raw_value",
    "_kafka_offset",
    "_kafka_timestamp",
    "_kafka_timestamp_ms",
    "event_id",
    "event_timestamp",
    "_arrival_delay_seconds",
    "_event_key",
)
"""Columns whose values hardly repeat."""

_DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.catalog.events": "io.usagelakehouse.EventFunctions",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.compression.codec": "zstd",
    # Spark's default, INT96, has no statistics in Parquet, and readers take it for nanoseconds, which end in 2262.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Level 1 packs these rows within a few percent of level 3 for two thirds of its time.
    "spark.hadoop.parquet.compression.codec.zstd.level": "1",
    # Unique values gain nothing from a dictionary that is built, overflows and is thrown away for each file.
    **{f"spark.hadoop.parquet.enable.dictionary#{name}": "false" for name in _UNIQUE},
    "spark.sql.streaming.stateStore.providerClass": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    "spark.sql.streaming.stopTimeout": "120s",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # 50 tasks to read a log of a few files cost seconds on a small machine.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "3g",
}


def build_session(settings: Settings, app_name: str, *, master: str | None = None) -> SparkSession:
    """Build or get the session; under `spark-submit` its own master and class path win.

    Raises LakehouseError where the project's jars are missing or the JVM does not start.
    """
    # Python turns Spark's timestamps into the zone of the process: days must not depend on where it runs.
    os.environ["TZ"] = "UTC"
    time.tzset()
    schemas = read_schemas(settings.schemas_dir)
    builder = SparkSession.builder.appName(f"usage-lakehouse {app_name}")
    conf = {
        **_DEFAULTS,
        "spark.sql.catalog.events.fields": schemas.ddl(),
        "spark.sql.catalog.events.schemas": schemas.rules(),
        "spark.sql.catalog.events.max-bytes": str(settings.silver.max_event_bytes),
        **settings.spark,
    }
    if settings.environment == "local":
        if not SPARK_JARS.is_dir():
            msg = (
                f"The folder {SPARK_JARS} of jars is missing; run `make setup`, which resolves them with Maven "
                "(playbooks/environment.md)."
            )
            raise LakehouseError(msg)
        # Spark would start the `python3` of the PATH for its workers: another version, without pyspark, on a laptop.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        conf.setdefault("spark.driver.extraClassPath", f"{SPARK_JARS}/*")
        # Before the session can set a level, Spark's start has already warned about this and that.
        conf.setdefault("spark.driver.extraJavaOptions", log_options(settings, app_name))
        # Hadoop has a umask of its own; the tables' logs are written by Python too, and one folder has one rule.
        conf.setdefault("spark.hadoop.fs.permissions.umask-mode", f"{current_umask():03o}")
        conf.setdefault("spark.driver.defaultJavaOptions", _JVM)
        conf.setdefault("spark.master", master or "local[*]")
        conf.setdefault("spark.driver.host", "127.0.0.1")
        conf.setdefault("spark.driver.bindAddress", "127.0.0.1")
    for key, value in conf.items():
        builder = builder.config(key, value)
    asked_to_stop = signal.getsignal(signal.SIGINT)
    prepare_jvm(settings, conf, app_name)
    spark = builder.getOrCreate()
    if threading.current_thread() is threading.main_thread() and asked_to_stop is not signal.default_int_handler:
        # PySpark has put its own in its place, which cancels the batch that Ctrl-C is to drain.
        signal.signal(signal.SIGINT, asked_to_stop)
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def instant(moment: datetime) -> Column:
    """Give a moment (with a zone) that changes with each batch, without a literal in the generated code: see InstantOf.java."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return F.call_function("events.instant", F.lit(text))
