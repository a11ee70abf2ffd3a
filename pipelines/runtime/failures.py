"""Names what Spark, Delta, the JVM or Kafka raised, in one sentence."""

from __future__ import annotations

from contextlib import suppress

from confluent_kafka import KafkaException
from deltalake.exceptions import DeltaError
from py4j.protocol import Py4JError
from pyarrow.lib import ArrowException
from pyspark.errors.exceptions.base import PySparkException

from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.chain import may_hold_values, own_error_of, text_of
from pipelines.lake.causes.classify import classify
from pipelines.lake.errors import LakehouseError, own_error
from pipelines.lake.storage.local_files import as_unreadable
from pipelines.lake.traces import save_trace

OUTSIDE_ERRORS = (PySparkException, Py4JError, DeltaError, ArrowException, KafkaException, OSError)
"""What comes from below when a table cannot be read, or the JVM or Kafka is gone: a sentence, not a stack trace."""


def named_error(error: Exception) -> LakehouseError:
    """Give one sentence for what Spark, Delta, the JVM, the machine or a mistake of the project raised.

    A sentence of the project's own inside it wins. Of an error that nobody has foreseen the trace is saved.
    """
    own = own_error_of(error) or own_error(text_of(error))
    if own is None and isinstance(error, OSError | DeltaError | ArrowException):
        own = as_unreadable(error, "a file", "open to this user")
    if own is not None:
        return own
    cause = classify(error)
    condition = cause.name
    with suppress(Py4JError, OSError):  # it asks the JVM, which may be gone
        condition = getattr(error, "getCondition", lambda: None)() or cause.name
    hidden = cause.kind in (Kind.DATA, Kind.UNKNOWN) and may_hold_values(error)
    said = f"It stopped with {condition} ({cause.kind}: {cause.reason}){'' if hidden else f': {_first_line(error)}'}"
    trace = save_trace(error) if cause.kind is Kind.UNKNOWN else None
    msg = f"{said}; see {f'its trace in {trace}' if trace else 'the log'}, then {cause.playbook}."
    return LakehouseError(msg)


def _first_line(error: Exception) -> str:
    """The beginning of what it says. Of an error that PySpark does not know Java's own text: Python's only names the call."""
    text = text_of(getattr(error, "java_exception", None) or error)
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]
