"""Transient or permanent: each error of the outside world, of Spark and of the project itself."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, KafkaException
from deltalake.exceptions import CommitFailedError, DeltaProtocolError, SchemaMismatchError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.classify import classify
from pipelines.lake.checkpoint.failures import Failure
from pipelines.lake.errors import (
    BreakerOpenError,
    CheckpointError,
    DataLossError,
    LeaseHeldError,
    PoisonBatchError,
    TransientError,
    UsageError,
)

STREAM_FAILED = """[STREAM_FAILED] Query [id = 1] terminated with exception: {first} SQLSTATE: XXKST
=== Streaming Query ===
Current State: ACTIVE

JVM stacktrace:
org.apache.spark.sql.streaming.StreamingQueryException: {first}
\tat org.apache.spark.sql.execution.streaming.StreamExecution.runStream(StreamExecution.scala:1)
\tat org.apache.hadoop.security.AccessControlException$.never(AccessControlException.java:7)
Caused by: {cause}
\tat java.base/java.lang.Thread.run(Thread.java:840)
"""


class StreamError(Exception):
    """Stands for what PySpark raises: a message with Java's trace in it."""


TASK = "\n\tat org.apache.spark.scheduler.Task.run(Task.scala:147)"
"""A frame of an executor that computes on records."""
LOG = "\n\tat org.apache.spark.sql.delta.SnapshotState.computedState(SnapshotState.scala:1)"


def of_stream(cause: str) -> StreamError:
    return StreamError(STREAM_FAILED.format(first=cause.partition("\n")[0], cause=cause))


@pytest.mark.parametrize(
    ("cause", "kind", "name", "playbook"),
    [
        ("org.apache.kafka.common.errors.TimeoutException: Timed out", Kind.TRANSIENT, "TimeoutException", "kafka-outage"),
        (
            "org.apache.spark.sql.delta.DeltaUnsupportedOperationException: [DELTA_CANNOT_MODIFY_APPEND_ONLY] This table is "
            "configured to only allow appends.",
            Kind.PERMANENT,
            "DELTA_CANNOT_MODIFY_APPEND_ONLY",
            "table-contract",
        ),
        (
            "org.apache.spark.sql.delta.DeltaFileNotFoundException: [DELTA_MISSING_CHANGE_DATA] Error getting change data",
            Kind.PERMANENT,
            None,
            "table-contract",
        ),
        ("org.apache.kafka.common.errors.DisconnectException: null", Kind.TRANSIENT, "DisconnectException", "kafka-outage"),
        ("org.apache.kafka.common.errors.NotLeaderOrFollowerException: x", Kind.TRANSIENT, None, "kafka-outage"),
        ("org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized", Kind.PERMANENT, None, "kafka-outage"),
        ("org.apache.kafka.common.errors.SaslAuthenticationException: no", Kind.PERMANENT, None, "kafka-outage"),
        ("org.apache.spark.SparkException: [KAFKA_DATA_LOSS.START_OFFSET_RESET] x", Kind.PERMANENT, None, "retention-overrun"),
        ("org.apache.kafka.clients.consumer.OffsetOutOfRangeException: x", Kind.PERMANENT, None, "retention-overrun"),
        (
            "io.delta.exceptions.ConcurrentAppendException: [DELTA_CONCURRENT_APPEND] x",
            Kind.TRANSIENT,
            None,
            "spark-crash",
        ),
        ("io.delta.exceptions.MetadataChangedException: [DELTA_METADATA_CHANGED] x", Kind.TRANSIENT, None, "spark-crash"),
        ("io.delta.exceptions.DeltaIllegalStateException: [DELTA_SCHEMA_CHANGED_WITH_VERSION] x", Kind.TRANSIENT, None, None),
        (
            "org.apache.spark.sql.delta.DeltaAnalysisException: [DELTA_SCHEMA_CHANGE_SINCE_ANALYSIS] x",
            Kind.TRANSIENT,
            "DELTA_SCHEMA_CHANGE_SINCE_ANALYSIS",
            "spark-crash",
        ),
        ("org.apache.hadoop.fs.s3a.AWSServiceThrottledException: SlowDown", Kind.TRANSIENT, None, "object-store-outage"),
        ("org.apache.hadoop.fs.s3a.AWSStatus500Exception: 503", Kind.TRANSIENT, None, "object-store-outage"),
        ("software.amazon.awssdk.core.exception.SdkClientException: x", Kind.TRANSIENT, None, "object-store-outage"),
        ("java.net.SocketException: Connection reset", Kind.TRANSIENT, "SocketException", "object-store-outage"),
        ("java.nio.file.AccessDeniedException: s3a://b/k: 403 Forbidden", Kind.PERMANENT, None, "object-store-outage"),
        ("java.nio.file.AccessDeniedException: /lake/silver/t/_delta_log", Kind.PERMANENT, None, "permission"),
        ("java.io.FileNotFoundException: /lake/a.parquet (Permission denied)", Kind.PERMANENT, None, "permission"),
        ("java.io.FileNotFoundException: /lake/a.parquet (Too many open files)", Kind.PERMANENT, None, "environment"),
        ("java.lang.OutOfMemoryError: unable to create native thread: limit", Kind.PERMANENT, None, "environment"),
        ("java.lang.ClassNotFoundException: io.delta.X", Kind.PERMANENT, None, "environment"),
        ("java.io.IOException: Input/output error", Kind.PERMANENT, None, "object-store-outage"),
        ("javax.net.ssl.SSLHandshakeException: PKIX", Kind.PERMANENT, None, "object-store-outage"),
        ("org.apache.kafka.common.config.ConfigException: Invalid value", Kind.PERMANENT, None, "kafka-outage"),
        ("org.apache.kafka.common.KafkaException: who knows", Kind.UNKNOWN, "KafkaException", "unknown-error"),
        ("java.util.concurrent.TimeoutException: Futures timed out", Kind.TRANSIENT, None, "spark-crash"),
        ("x.DeltaUnsupportedOperationException: [DELTA_CANNOT_MODIFY_APPEND_ONLY] x", Kind.PERMANENT, None, "table-contract"),
        ("x.DeltaAnalysisException: [DELTA_MISSING_CHANGE_DATA] x", Kind.PERMANENT, None, "table-contract"),
        (
            "x.FeatureException: [DELTA_UNSUPPORTED_FEATURES_FOR_READ] x",
            Kind.PERMANENT,
            None,
            "table-contract",
        ),
        ("x.DeltaInvariantViolationException: [DELTA_VIOLATE_CONSTRAINT_WITH_VALUES] x", Kind.PERMANENT, None, "table-contract"),
        ("x.DeltaUnsupportedOperationException: [DELTA_SOURCE_TABLE_IGNORE_CHANGES] x", Kind.PERMANENT, None, "table-contract"),
        ("x.AnalysisException: [DELTA_FAILED_TO_MERGE_FIELDS] x", Kind.PERMANENT, None, "table-contract"),
        (
            "org.apache.spark.SparkException: [FAILED_READ_FILE.FILE_NOT_EXIST] file:/l/silver/t/_change_data/c.parquet",
            Kind.PERMANENT,
            None,
            "table-contract",
        ),
        (
            "org.apache.spark.SparkException: [FAILED_READ_FILE.FILE_NOT_EXIST] file:/l/bronze/api_usage_events/p.parquet",
            Kind.PERMANENT,
            None,
            "bronze-corruption",
        ),
        (
            "x.NotFoundException: [DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE] x",
            Kind.PERMANENT,
            None,
            "checkpoint-lost",
        ),
        ("java.io.FileNotFoundException: File /ck/silver/g1/commits/3 does not exist", Kind.PERMANENT, None, "checkpoint-lost"),
        ("java.io.FileNotFoundException: /tmp/blockmgr-0a1b2c3d-4e/1/x (No such file)", Kind.PERMANENT, None, "spark-crash"),
        ("java.io.IOException: No space left on device", Kind.TRANSIENT, "No space left on device", "disk-full"),
        ("java.lang.OutOfMemoryError: Java heap space", Kind.PERMANENT, "OutOfMemoryError", "spark-crash"),
        ("org.apache.spark.sql.AnalysisException: [UNRESOLVED_COLUMN] x", Kind.PERMANENT, "UNRESOLVED_COLUMN", "table-contract"),
        ("java.lang.IllegalStateException: batch 7 doesn't exist", Kind.PERMANENT, None, "checkpoint-lost"),
        ("java.lang.IllegalStateException: Incomplete log file in the offset log", Kind.PERMANENT, None, "checkpoint-lost"),
        (
            "org.apache.hadoop.fs.ChecksumException: Checksum error: file:/ck/gold/g1/offsets/3 at 0 exp: 1 got: 2",
            Kind.PERMANENT,
            "ChecksumException",
            "checkpoint-lost",
        ),
        (
            "org.apache.hadoop.fs.ChecksumException: Checksum error: file:/ck/gold/g1/lakehouse.json at 0",
            Kind.PERMANENT,
            "ChecksumException",
            "checkpoint-lost",
        ),
        (
            "org.apache.hadoop.fs.ChecksumException: Checksum error: file:/lake/silver/t/part-0.parquet at 0 exp: 1 got: 2",
            Kind.PERMANENT,
            "ChecksumException",
            "full-rebuild",
        ),
        (
            "org.apache.spark.SparkIllegalStateException: [INVALID_LOG_VERSION.MAX_SUPPORTED_VERSION] x",
            Kind.PERMANENT,
            "MAX_SUPPORTED_VERSION",
            "checkpoint-lost",
        ),
        (
            "com.fasterxml.jackson.core.io.JsonEOFException: Unexpected end-of-input in field name\n"
            "\tat org.apache.spark.sql.execution.streaming.checkpointing.OffsetSeqLog.deserialize(OffsetSeqLog.scala:100)",
            Kind.PERMANENT,
            "JsonEOFException",
            "checkpoint-lost",
        ),
        (
            "com.fasterxml.jackson.core.JsonParseException: x\n"
            "\tat org.apache.spark.sql.delta.sources.DeltaSourceOffset$.apply(DeltaSourceOffset.scala:1)",
            Kind.PERMANENT,
            "JsonParseException",
            "checkpoint-lost",
        ),
        ("com.fasterxml.jackson.core.JsonParseException: x\n\tat a.B.deserialize(B.java:1)", Kind.UNKNOWN, None, "unknown-error"),
        (f"com.fasterxml.jackson.core.JsonParseException: x{TASK}", Kind.DATA, None, "poison-flood"),
        (f"com.fasterxml.jackson.core.JsonParseException: x{TASK}{LOG}", Kind.UNKNOWN, None, "unknown-error"),
        ("java.io.FileNotFoundException: part-0.parquet", Kind.PERMANENT, "FileNotFoundException", "full-rebuild"),
        ("org.apache.spark.SparkException: [FAILED_READ_FILE.FILE_NOT_EXIST] x", Kind.PERMANENT, None, "full-rebuild"),
        (
            "org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] x\nCaused by: java.net.SocketTimeoutException: x",
            Kind.TRANSIENT,
            "SocketTimeoutException",
            "object-store-outage",
        ),
        (f"java.lang.NullPointerException{TASK}", Kind.DATA, "NullPointerException", "poison-flood"),
        (f"java.lang.StackOverflowError{TASK}", Kind.DATA, "StackOverflowError", "poison-flood"),
        # The same in the driver: planning, settings, the log of a table.
        ("java.lang.NullPointerException", Kind.UNKNOWN, None, "unknown-error"),
        ("java.lang.IllegalArgumentException: maxColumns should be an integer", Kind.UNKNOWN, None, "unknown-error"),
        ("java.lang.UnsupportedOperationException: not here", Kind.UNKNOWN, None, "unknown-error"),
        ("org.apache.spark.sql.catalyst.parser.ParseException: [PARSE_SYNTAX_ERROR] x", Kind.UNKNOWN, None, "unknown-error"),
        ("org.apache.spark.SparkException: ExecutorLostFailure (executor 1)", Kind.TRANSIENT, None, "spark-crash"),
        ("com.example.OddException: what is it", Kind.UNKNOWN, "OddException", "unknown-error"),
    ],
)
def test_cause_in_javas_trace_decides(cause: str, kind: Kind, name: str | None, playbook: str | None) -> None:
    found = classify(of_stream(cause))

    assert found.kind is kind
    assert name in (None, found.name)
    assert playbook is None or found.playbook == f"playbooks/{playbook}.md"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Kind.TRANSIENT),
        (OSError(errno.EROFS, "Read-only file system"), Kind.PERMANENT),
        (PermissionError(errno.EACCES, "Permission denied"), Kind.PERMANENT),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Kind.TRANSIENT),
        (TimeoutError("no answer"), Kind.TRANSIENT),
        (FileNotFoundError(errno.ENOENT, "gone"), Kind.UNKNOWN),
        (OSError(errno.EMFILE, "Too many open files"), Kind.PERMANENT),
        (OSError(errno.ENAMETOOLONG, "File name too long"), Kind.PERMANENT),
        (OSError(errno.EIO, "Input/output error"), Kind.PERMANENT),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), Kind.PERMANENT),
        (OSError(errno.ESTALE, "Stale file handle"), Kind.TRANSIENT),
        (CommitFailedError("Delta table is append-only"), Kind.PERMANENT),
        (DeltaProtocolError("deletionVectors"), Kind.PERMANENT),
        (CommitFailedError("another commit"), Kind.TRANSIENT),
        (SchemaMismatchError("column"), Kind.PERMANENT),
        # The driver's own sums and files: no record has been computed on.
        (OverflowError("too large"), Kind.UNKNOWN),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), Kind.UNKNOWN),
        (ValueError("no"), Kind.UNKNOWN),
        (KeyError("no"), Kind.UNKNOWN),
        (MemoryError(), Kind.PERMANENT),
        (DataLossError("Gone."), Kind.PERMANENT),
        (CheckpointError("Foreign."), Kind.PERMANENT),
        (UsageError("Wrong."), Kind.PERMANENT),
        (PoisonBatchError("Many."), Kind.PERMANENT),
        (TransientError("No broker."), Kind.TRANSIENT),
        (BreakerOpenError("Open."), Kind.HELD),
        (RuntimeError("who knows"), Kind.UNKNOWN),
    ],
)
def test_errors_of_python_and_of_the_project(error: Exception, kind: Kind) -> None:
    assert classify(error).kind is kind


@pytest.mark.parametrize("kind", ["DataLossError", "TransientError", "BreakerOpenError"])
def test_own_error_within_sparks_trace_decides_before_all_else(kind: str) -> None:
    trace = f"Py4JException: java.net.SocketTimeoutException\npipelines.lake.errors.{kind}: A sentence.\n\tat java"
    expected = {"DataLossError": Kind.PERMANENT, "TransientError": Kind.TRANSIENT, "BreakerOpenError": Kind.HELD}

    assert classify(StreamError(trace)).kind is expected[kind]


def test_cause_that_python_chained_counts_and_a_suppressed_one_does_not() -> None:
    def chained(*, suppressed: bool) -> Exception:
        try:
            try:
                raise OSError(errno.ENOSPC, "full")
            except OSError as full:
                if suppressed:
                    raise KeyError from None
                raise KeyError from full
        except KeyError as error:
            return error

    assert classify(chained(suppressed=False)).name == "ENOSPC"
    assert classify(chained(suppressed=True)).name == "KeyError"


def _text_of_a_row(text: str) -> Column:
    """A text that a task computes: what a literal's cast fails with is thrown in the driver, and no record's."""
    return F.concat(F.lit(text), F.col("id").cast("string"))


def test_what_sparks_executors_throw_on_a_record_is_a_matter_of_data(spark: SparkSession) -> None:
    failing: list[Callable[[], object]] = [
        lambda: spark.range(9).select(F.lit(1) / (F.col("id") - 5)).toArrow(),
        lambda: spark.range(9).select(F.call_function("events.instant", F.col("id").cast("string"))).toArrow(),
        lambda: spark.range(1).select(_text_of_a_row("x").cast("int")).write.format("noop").mode("overwrite").save(),
    ]
    for fail in failing:
        with pytest.raises((PySparkException, Py4JJavaError)) as caught:
            fail()
        assert classify(caught.value).kind is Kind.DATA
        assert classify(caught.value).suspects_data


def test_missing_column_is_a_matter_of_schema(spark: SparkSession) -> None:
    with pytest.raises(Exception, match="no_such") as caught:
        spark.range(1).select("no_such").collect()
    found = classify(caught.value)

    assert (found.kind, found.playbook) == (Kind.PERMANENT, "playbooks/table-contract.md")


def test_name_of_a_cause_is_no_message(spark: SparkSession) -> None:
    with pytest.raises(Exception, match="secret-value") as caught:
        spark.range(1).select(_text_of_a_row("secret-value").cast("int")).collect()
    found = classify(caught.value)

    assert found.kind is Kind.DATA
    assert "secret-value" not in repr(found)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_jvm_that_ends_for_want_of_memory_is_named_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    port, process = launch_gateway(javaopts=["-Xmx32m", "-XX:+ExitOnOutOfMemoryError"], die_on_exit=True, return_proc=True)
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
    gateway.proc = process
    monkeypatch.setattr(SparkContext, "_gateway", gateway)
    try:
        with pytest.raises((Py4JError, OSError)) as caught:
            gateway.new_array(gateway.jvm.long, 10_000_000)
        cause = classify(caught.value)
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout):
            stream.close()
    assert (cause.kind, cause.name, cause.reason) == (Kind.PERMANENT, "OutOfMemoryError", "memory is exhausted")
    # py4j leaves the socket of its second try open: it is collected here, where that is no error.
    del caught, gateway
    monkeypatch.undo()
    gc.collect()


def test_outage_is_not_blamed_on_a_record() -> None:
    assert not classify(of_stream("java.net.SocketException: Connection reset")).suspects_data
    assert classify(of_stream("com.example.OddException: x")).suspects_data


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._AUTHENTICATION, Kind.PERMANENT),
        (KafkaError._INVALID_ARG, Kind.PERMANENT),
        (KafkaError.SASL_AUTHENTICATION_FAILED, Kind.PERMANENT),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Kind.PERMANENT),
        (KafkaError._TRANSPORT, Kind.TRANSIENT),
        (KafkaError._TIMED_OUT, Kind.TRANSIENT),
        (KafkaError.LEADER_NOT_AVAILABLE, Kind.TRANSIENT),
    ],
)
def test_code_of_a_kafka_error_decides(code: int, kind: Kind) -> None:
    found = classify(KafkaException(KafkaError(code)))

    assert (found.kind, found.playbook) == (kind, "playbooks/kafka-outage.md")


@pytest.mark.parametrize(
    "error",
    [
        pa.ArrowInvalid("Could not open Parquet input source 'a': Parquet magic bytes not found in footer."),
        OSError("Couldn't deserialize thrift: TProtocolException"),
    ],
)
def test_file_that_is_cut_is_blamed_on_no_record(error: Exception) -> None:
    found = classify(error)

    assert (found.kind, found.playbook) == (Kind.PERMANENT, "playbooks/full-rebuild.md")


def test_lease_that_another_holds_is_no_outage_of_kafka() -> None:
    for error in (
        LeaseHeldError("Held."),
        StreamError("Py4JException: x\npipelines.lake.errors.LeaseHeldError: Held.\n at java"),
    ):
        found = classify(error)

        assert (found.kind, found.reason) == (Kind.TRANSIENT, "another writer holds the lease")
        assert found.playbook == "playbooks/spark-crash.md"


_OF_PYTHON = (KeyError, AttributeError, TypeError, IndexError, AssertionError, ZeroDivisionError, LookupError, ValueError)
_WORDS = st.text(alphabet="abcdefghij 0123456789:/.\n", max_size=60)


@st.composite
def _unknown_errors(draw: st.DrawFn) -> Exception:
    """An error of a class that no family has, of Python or in a trace of Java's, from the driver or from a task."""
    said = draw(_WORDS)
    if draw(st.booleans()):
        error: Exception = draw(st.sampled_from(_OF_PYTHON))(said)
        return error
    name = draw(st.text(alphabet="bcdfghjklmnpqrstvwxz", min_size=4, max_size=9)).capitalize()
    place = draw(st.sampled_from(["", TASK, LOG, TASK + LOG]))
    return of_stream(f"org.example.{name}{draw(st.sampled_from(['Exception', 'Error']))}: {said}{place}")


@given(error=_unknown_errors())
@hypothesis_settings(deadline=None, max_examples=300)
def test_what_nobody_has_foreseen_is_called_unknown_and_ends(error: Exception) -> None:
    cause = classify(error)
    assert (cause.kind, cause.playbook) == (Kind.UNKNOWN, "playbooks/unknown-error.md")
    assert cause.suspects_data  # Silver looks for a record at the last attempt, and names the error unknown all the same
    ends = [Failure("silver", 3, count, cause, None).is_final(6) for count in range(1, 8)]
    assert ends == [False] * 5 + [True] * 2


_SUSPICIOUS = (
    "java.lang.IllegalArgumentException",
    "java.lang.UnsupportedOperationException",
    "java.lang.ArithmeticException",
    "java.lang.NullPointerException",
    "java.time.DateTimeException",
    "org.apache.spark.SparkRuntimeException",
    "com.fasterxml.jackson.core.JsonParseException",
    "pyarrow.lib.ArrowInvalid",
    "builtins.ValueError",
)


@given(name=st.sampled_from(_SUSPICIOUS), said=_WORDS, tail=st.sampled_from(["", LOG, TASK + LOG]))
@hypothesis_settings(deadline=None, max_examples=200)
def test_record_is_suspected_only_where_a_task_computed_on_records(name: str, said: str, tail: str) -> None:
    assert classify(of_stream(f"{name}: {said}{tail}")).kind is Kind.UNKNOWN
    assert classify(of_stream(f"{name}: {said}{TASK}")).kind is Kind.DATA
