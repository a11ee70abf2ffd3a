"""The JVM of this process's Spark: its start, what it may say on the console, and which signals it leaves to Python."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.logger import PySparkLogger

from pipelines.lake import failpoints
from pipelines.lake.errors import LakehouseError
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.surroundings import jvm_locale, locale_for_jvm, paths_of, raise_file_limit, require_spelling

LOG_TO_FILE = PROJECT / "conf" / "log4j2.properties"
LOG_AS_JSON = PROJECT / "conf" / "log4j2-json.properties"

_SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""Set where `spark-submit` has started the JVM, and the JVM this process."""
_NOISE = (b"WARNING: Using incubator modules:",)
"""What a JVM says at each start, and cannot be told not to."""
_SHOWN = 300
_LOG = "lakehouse.log"
"""The Java property that names the file in conf/log4j2.properties."""
_PYSPARK_LOGGERS = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")


def is_submitted() -> bool:
    """Whether `spark-submit` started this process."""
    return _SUBMITTED in os.environ


def prepare_jvm(settings: Settings, conf: Mapping[str, str], app_name: str) -> None:
    """Start the JVM with the options `conf`, unless it runs; errors of Spark then go to its log, not to the console.

    Raises UsageError where the process's surroundings do not do, LakehouseError with the JVM's reason where it does not start.
    """
    raise_file_limit()
    spelled = jvm_locale(paths_of(settings))
    if SparkContext._gateway is None:
        if not is_submitted():
            with locale_for_jvm(spelled):
                _start(conf)
        else:
            SparkContext._ensure_initialized()
    jvm: Any = SparkContext._jvm
    # The encoding of file names; one that `spark-submit` started has the locale of the shell.
    require_spelling(paths_of(settings), str(jvm.java.lang.System.getProperty("sun.jnu.encoding")))
    _leave_signals_to_python(jvm)
    _set_log(jvm, settings, app_name)
    for name in _PYSPARK_LOGGERS:
        # They print an error with its Java trace before whoever caught it can say what it means.
        PySparkLogger.getLogger(name).disabled = True


def log_options(settings: Settings, app_name: str) -> str:
    """Java options that send Spark's own log to where the settings want logs, before its start has something to say."""
    if settings.log.format == "json":
        return f'"-Dlog4j2.configurationFile={LOG_AS_JSON.as_uri()}"'
    path = re.sub(r'(["\\])', r"\\\1", str(log_file(settings, app_name)))
    return f'"-Dlog4j2.configurationFile={LOG_TO_FILE.as_uri()}" "-D{_LOG}={path}"'


def log_file(settings: Settings, app_name: str) -> Path:
    """Where Spark's own errors of the job or command `app_name` stand, with their traces."""
    return Path(os.path.abspath(settings.lake.state_dir)) / "logs" / f"spark-{app_name.replace(' ', '-')}.log"


def _start(conf: Mapping[str, str]) -> None:
    reader, writer = os.pipe()
    said = _Said(reader)
    options = SparkConf(loadDefaults=False).setAll(list(conf.items()))
    try:
        try:
            gateway = launch_gateway(options, {"stderr": writer})  # type: ignore[no-untyped-call]
        finally:
            os.close(writer)
    except (PySparkRuntimeError, OSError) as error:
        msg = (
            f"Spark's JVM did not start: {said.reason() or error}; check `java -version` (17 or newer), JAVA_HOME, "
            "and the memory that `spark.driver.memory` asks for (playbooks/environment.md)."
        )
        raise LakehouseError(msg) from None
    failpoints.kill_first(gateway.proc.pid)
    said.pass_on()
    SparkContext._ensure_initialized(gateway=gateway)


class _Said:
    """Reads what the JVM writes to standard error: kept while it starts, then passed on line by line, but for its noise."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self._lines: list[bytes] = []
        self._passes = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="jvm-stderr", daemon=True)
        self._thread.start()

    def pass_on(self) -> None:
        """Write what was said so far, and all that follows, to this process's standard error."""
        with self._lock:
            self._passes = True
            for line in self._lines:
                _write(line)
            self._lines.clear()

    def reason(self) -> str:
        """What a JVM that ended had to say, without frames of a stack."""
        self._thread.join(5)
        texts = (line.decode(errors="replace").strip(" .\n") for line in self._lines)
        return ". ".join(text for text in texts if text and not text.startswith("at "))[:_SHOWN]

    def _read(self) -> None:
        with open(self._reader, "rb") as lines:
            for line in lines:
                if line.startswith(_NOISE):
                    continue
                with self._lock:
                    if self._passes:
                        _write(line)
                    else:
                        self._lines.append(line)


def _write(line: bytes) -> None:
    # Not by sys.stderr: what stands there may be somebody's buffer, and child processes write to the file itself.
    with suppress(OSError):
        os.write(2, line)


def _leave_signals_to_python(jvm: Any) -> None:
    """Let the JVM ignore what a terminal sends to both, where Python drains on it: the last batch needs its JVM."""
    for number in (signal.SIGINT, signal.SIGHUP):
        handler = signal.getsignal(number)
        if handler not in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None):
            name = signal.Signals(number).name.removeprefix("SIG")
            jvm.sun.misc.Signal.handle(jvm.sun.misc.Signal(name), jvm.sun.misc.SignalHandler.SIG_IGN)


def _set_log(jvm: Any, settings: Settings, app_name: str) -> None:
    """Point the project's own log configuration, if it is the one in use, to the log of this job or command."""
    context = jvm.org.apache.logging.log4j.LogManager.getContext(False)
    if str(context.getConfiguration().getName()) == "lakehouse":
        path = str(log_file(settings, app_name))
        if jvm.java.lang.System.setProperty(_LOG, path) != path:
            context.reconfigure()
