"""Which errors may pass by themselves: the one place that decides between transient and permanent, and how long to wait."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import tenacity

from pipelines.common.errors import (
    BreakerOpenError,
    DamagedError,
    LakehouseError,
    LeaseHeldError,
    PoisonBatchError,
    TransientError,
    UnknownFeatureError,
    UnreadableError,
    UnreadableNowError,
    own_error,
)
from pipelines.common.settings import RetrySettings


class Kind(StrEnum):
    """What can be done about an error."""

    TRANSIENT = "transient"
    """The same work may succeed later: retry with backoff."""
    PERMANENT = "permanent"
    """The same work fails again until somebody acts: stop."""
    DATA = "data"
    """Permanent, and one of the records looks like the cause: look for it."""
    HELD = "held"
    """The circuit breaker is open: wait, it is no failure."""


@dataclass(frozen=True)
class Cause:
    """What an error was taken for; `name` is a class, condition or errno, never a message, which may hold payload values."""

    kind: Kind
    name: str
    reason: str
    playbook: str

    @property
    def suspects_data(self) -> bool:
        """Whether a record may be behind it: surely not where the outside world is known to have failed."""
        return self.kind is Kind.DATA or (self.kind is Kind.TRANSIENT and self.reason in (_LOST_WORKER, _UNKNOWN))


_LOST_JVM = "the JVM of this process is gone"
_NO_MEMORY = "memory is exhausted"
_NO_MEMORY_EXIT = 3
"""Exit code of a JVM that ends by its ExitOnOutOfMemoryError, which pipelines/common/session.py asks for."""
_JVM_IS_SILENT = "Answer from Java side is empty"
_LOST_WORKER = "a worker was lost"
_UNKNOWN = "the cause is not known"
_NO_HANDLE = "no file handle is free, the limit `ulimit -n` is too low or something leaks them"


@dataclass(frozen=True)
class _Family:
    kind: Kind
    reason: str
    playbook: str
    pattern: re.Pattern[str]


def _family(kind: Kind, reason: str, playbook: str, *patterns: str) -> _Family:
    return _Family(kind, reason, playbook, re.compile("|".join(patterns)))


_T, _P, _D = Kind.TRANSIENT, Kind.PERMANENT, Kind.DATA
_FAMILIES = (
    # The first that fits wins. A trace holds the whole chain of causes, so what is certain comes before what is general.
    _family(
        _P,
        _LOST_JVM,
        "spark-crash",
        r"Py4JNetworkError",
        _JVM_IS_SILENT,
        # What Python is told where the answer was cut; with a trace it is an error of a JVM that lives.
        r"protocol\.Py4JError(?=: An error occurred while calling (?!.*Trace:))",
    ),
    # It comes as a missing file, a refused connection or a failed read, with these words in it.
    _family(_T, _NO_HANDLE, "spark-crash", r"Too many open files(?: in system)?"),
    _family(
        _P,
        "offsets that were to be read are gone",
        "retention-overrun",
        r"KAFKA_DATA_LOSS[.\w]*",
        r"OffsetOutOfRangeException",
        r"may have been lost because they are not available in Kafka",
    ),
    _family(
        _P,
        "a checkpoint is cut",
        "checkpoint-lost",
        # Hadoop's own checksum, of a file of the checkpoint: of a table's it is the family after this one.
        r"ChecksumException(?=[^\n]*/(?:offsets|commits|sources|state|metadata)\b)",
    ),
    _family(
        _P,
        "a file of a table is missing or cut",
        "full-rebuild",
        r"FAILED_READ_FILE\.FILE_NOT_EXIST",
        r"DELTA_(?:FILE_NOT_FOUND|LOG_FILE_NOT_FOUND|TRUNCATED_TRANSACTION_LOG|VERSIONS_NOT_CONTIGUOUS|STATE_RECOVER_ERROR)\w*",
        r"ChecksumException",
        r"ArrowInvalid(?=:[^\n]*Parquet)|OSError(?=: (?:Couldn't deserialize thrift|Unexpected end of stream|Corrupt ))",
        r"DeltaError(?=: Kernel error: (?:Json error|No table metadata|Generic delta kernel error: Expected contiguous))",
    ),
    _family(
        _P,
        "a checkpoint is cut",
        "checkpoint-lost",
        r"(?:Incomplete|Malformed) log file",
        r"CANNOT_LOAD_STATE_STORE[.\w]*",
        r"STATE_STORE_\w*CHECKSUM\w*",
        r"InvalidProtocolBufferException",
    ),
    _family(
        _P,
        "Kafka refuses this client",
        "kafka-outage",
        r"kafka\.common\.errors\.\w*Auth(?:entication|orization)\w*Exception",
        r"(?<=KafkaError\{code=)(?:_AUTHENTICATION|_INVALID_ARG|_SSL|\w+_(?:AUTHENTICATION|AUTHORIZATION)_FAILED"
        r"|UNSUPPORTED_SASL_MECHANISM|ILLEGAL_SASL_STATE)\b",
    ),
    _family(
        _P,
        "access is refused",
        "object-store-outage",
        r"AccessDeniedException",
        r"AccessControlException",
        r"\w*AuthorizationException",
        r"\w*AuthenticationException",
        r"NoAuthWithAWSException",
        r"CredentialInitializationException",
        r"PermissionError",
        r"Permission denied",
        r"Read-only file system",
    ),
    _family(_P, _NO_MEMORY, "spark-crash", r"OutOfMemoryError", r"MemoryError"),
    _family(
        _T,
        "another writer committed first, or the table changed under the reader",
        "spark-crash",
        r"Concurrent(?:Append|DeleteRead|DeleteDelete|Transaction|Write|Modification)Exception",
        r"(?:Metadata|Protocol)ChangedException",
        r"DELTA_CONCURRENT_\w+",
        r"DELTA_SCHEMA_CHANGE(?:D\w*|_SINCE_ANALYSIS)",
        r"CommitFailedError",
        r"FileAlreadyExistsException",
    ),
    _family(_T, "a disk is full", "disk-full", r"No space left on device", r"Disk quota exceeded", r"DiskErrorException"),
    _family(
        _T,
        "Kafka does not answer",
        "kafka-outage",
        r"kafka\.common\.errors\.(?:Timeout|Disconnect|Network|Retriable|\w*NotAvailable|NotLeaderOrFollower|NotCoordinator"
        r"|UnknownTopicOrPartition|UnknownTopicId|NotEnoughReplicas\w*|BrokerNotAvailable|KafkaStorage|\w*Epoch)\w*Exception",
        r"kafka\.\w+\.\w*TimeoutException",
        r"No resolvable bootstrap urls",
        r"\bKafkaException\b",
    ),
    _family(
        _T,
        "the object store or the network does not answer",
        "object-store-outage",
        r"AWS(?:ServiceThrottled|Status5\w+|StatusException|ServiceIO|ApiCallTimeout|ClientIO|NoResponse|RemoteFileChanged)\w*",
        r"S3Exception",
        r"Sdk(?:Client)?Exception",
        r"SlowDown|Slow Down|ServiceUnavailable|Service: S3, Status Code: 5\d\d",
        r"SocketTimeoutException",
        r"SocketException",
        r"ConnectException",
        r"UnknownHostException",
        r"NoRouteToHostException",
        r"SSL\w*Exception",
        r"NoHttpResponseException",
        r"HttpChannelEOFException",
        r"Connection reset",
        r"Broken pipe",
        r"ConnectionError|ConnectionResetError|ConnectionRefusedError|BrokenPipeError|ConnectionAbortedError",
        r"\bTimeoutException|TimeoutError",
        r"ClosedChannelException",
    ),
    _family(
        _T,
        _LOST_WORKER,
        "spark-crash",
        r"ExecutorLostFailure",
        r"FetchFailed\w*",
        r"Python worker exited unexpectedly",
        r"PYTHON_WORKER_\w+",
    ),
    _family(
        _P,
        "somebody changed a property or a feature of a table",
        "table-contract",
        r"DELTA_CANNOT_MODIFY_APPEND_ONLY",
        r"DELTA_MISSING_CHANGE_DATA|DELTA_CHANGE_TABLE_FEED_DISABLED",
        r"DELTA_UNSUPPORTED_FEATURES?_\w+|DELTA_INVALID_PROTOCOL_VERSION",
    ),
    _family(
        _P,
        "a schema does not fit",
        "schema-change",
        r"AnalysisException",
        r"SchemaMismatchError",
        r"DELTA_\w*SCHEMA\w*",
        r"DELTA_\w*(?:COLUMN|TYPE)\w*MISMATCH\w*",
        r"SchemaColumnConvertNotSupportedException",
        r"FAILED_READ_FILE\.PARQUET_COLUMN_DATA_TYPE_MISMATCH",
    ),
    _family(
        _P,
        "a checkpoint does not fit",
        "checkpoint-lost",
        r"STREAMING_CHECKPOINT\w*|CHECKPOINT_\w+",
        r"INVALID_LOG_VERSION[.\w]*",
        r"batch \d+ doesn't exist",
        r"DELTA_STREAMING_\w+|DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE",
        r"_LEGACY_ERROR_TEMP_30\d\d",
    ),
    _family(_P, "a file is missing", "full-rebuild", r"FileNotFoundException", r"FileNotFoundError", r"FAILED_READ_FILE[.\w]*"),
    _family(
        _D,
        "a record cannot be processed",
        "poison-flood",
        r"SQLSTATE: 22\w{3}",
        r"(?:java\.lang|java\.time|org\.apache\.spark|pyspark[.\w]*)\.(?:Spark)?"
        r"(?:Arithmetic|NumberFormat|DateTime|ArrayIndexOutOfBounds|StringIndexOutOfBounds|IndexOutOfBounds|NullPointer|ClassCast"
        r"|NegativeArraySize|IllegalArgument|UnsupportedOperation)Exception",
        r"SparkRuntimeException",
        r"java\.lang\.StackOverflowError",
        r"java\.nio\.(?:charset\.\w+|Buffer\w+)Exception",
        r"Json\w*Exception",
        r"Arrow(?:Invalid|TypeError)",
        r"(?:Overflow|Unicode\w+|Value)Error",
    ),
)
_ERRNO = {
    errno.EMFILE: (_T, _NO_HANDLE, "spark-crash"),
    errno.ENFILE: (_T, _NO_HANDLE, "spark-crash"),
    errno.ENOSPC: (_T, "a disk is full", "disk-full"),
    errno.EDQUOT: (_T, "a disk is full", "disk-full"),
    errno.EACCES: (_P, "access is refused", "object-store-outage"),
    errno.EPERM: (_P, "access is refused", "object-store-outage"),
    errno.EROFS: (_P, "access is refused", "object-store-outage"),
}
_CLASS = re.compile(r"\b(?:[a-z_]\w*\.)+([A-Z]\w*(?:Exception|Error|Failure))\b")


def _page(playbook: str) -> str:
    return f"playbooks/{playbook}.md"


POISON_PLAYBOOK = _page("poison-flood")
_READS_CHECKPOINT = re.compile(r"\bat \S+\.streaming\.checkpointing\.\w+\.deserialize\(|\bat \S+SourceOffset\$?\.apply\(")
"""A frame of Spark reading a checkpoint's file: data that cannot be understood there are no record's."""
_FRAME = re.compile(r'\s*(?:at \S+\(|File ")')
"""A line of a stack: it names classes that failed nothing."""


def classify(error: BaseException) -> Cause:
    """Say whether the work behind `error` may succeed later, by classes and conditions of the whole chain of causes.

    What nobody knows counts as transient: the work is idempotent, and the number of retries is bounded.
    """
    cause = _cause(error)
    if cause.reason == _LOST_JVM and _jvm_exit_code() == _NO_MEMORY_EXIT:
        # The error that its JVM ran into has not reached Python.
        return Cause(_P, "OutOfMemoryError", _NO_MEMORY, cause.playbook)
    return cause


def _cause(error: BaseException) -> Cause:
    own = next((one for one in _chain(error) if isinstance(one, LakehouseError)), None)
    trace = trace_of(error)
    text = "\n".join(line for line in trace.splitlines() if not _FRAME.match(line))
    own = own or own_error(text)
    if own is not None:
        return _own_cause(own)
    for one in _chain(error):
        if isinstance(one, ConnectionError) and _is_in_py4j(one):
            return Cause(_P, type(one).__name__, _LOST_JVM, _page("spark-crash"))
        if isinstance(one, OSError) and one.errno in _ERRNO:
            kind, reason, playbook = _ERRNO[one.errno]
            return Cause(kind, errno.errorcode[one.errno], reason, _page(playbook))
    for family in _FAMILIES:
        found = family.pattern.search(text)
        if found:
            name = found[0].rsplit(".", 1)[-1] if "." in found[0] else found[0]
            if family.kind is _D and _READS_CHECKPOINT.search(trace):
                return Cause(_P, name, "a checkpoint is cut", _page("checkpoint-lost"))
            return Cause(family.kind, name, family.reason, _page(family.playbook))
    named = _CLASS.findall(text)
    return Cause(_T, named[-1] if named else type(error).__name__, _UNKNOWN, _page("spark-crash"))


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed later."""
    return classify(error).kind is Kind.TRANSIENT


def backoff_seconds(settings: RetrySettings, failures: int) -> float:
    """Wait after so many failures in a row (from 1): exponential, with jitter so that streams do not come back together."""
    first = settings.first_wait_seconds
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failures
    return tenacity.wait_exponential_jitter(multiplier=first, max=settings.longest_wait_seconds, jitter=first)(state)


def _is_in_py4j(error: BaseException) -> bool:
    """Whether it was the connection to this process's own JVM that failed."""
    return any("/py4j/" in frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))


def _jvm_exit_code() -> int | None:
    """How the JVM of this process's session ended; None where there was none, it lives, or it is not this process's child."""
    context = getattr(sys.modules.get("pyspark"), "SparkContext", None)
    process: subprocess.Popen[bytes] | None = getattr(getattr(context, "_gateway", None), "proc", None)
    try:
        # Its connections are closed a moment before it is gone.
        return process.wait(5) if process is not None else None
    except subprocess.TimeoutExpired:
        return None


_UNREAD: dict[type[LakehouseError], tuple[str, str]] = {
    UnreadableNowError: ("a file is not readable now", "object-store-outage"),
    UnreadableError: ("access is refused", "object-store-outage"),
    UnknownFeatureError: ("a table has a feature that is not understood", "bad-deploy"),
    DamagedError: ("a file of a table is missing or cut", "full-rebuild"),
}


def _own_cause(error: LakehouseError) -> Cause:
    name = type(error).__name__
    if isinstance(error, BreakerOpenError):
        return Cause(Kind.HELD, name, "too many dead letters", POISON_PLAYBOOK)
    if isinstance(error, LeaseHeldError):
        return Cause(_T, name, "another writer holds the lease", _page("spark-crash"))
    for of, (reason, page) in _UNREAD.items():
        if isinstance(error, of):
            return Cause(_T if isinstance(error, TransientError) else _P, name, reason, _page(page))
    if isinstance(error, TransientError):
        return Cause(_T, name, "the outside world did not answer", _page("kafka-outage"))
    playbook = POISON_PLAYBOOK if isinstance(error, PoisonBatchError) else _page("spark-crash")
    return Cause(_P, name, "an operator has to decide", playbook)


def trace_of(error: BaseException) -> str:
    """Messages and Java traces of the whole chain of causes, to be searched; never shown, they may hold payload values."""
    return "\n".join(_texts(error))


def text_of(said: object) -> str:
    """An error of Python or Java as text: one of Java's asks its JVM for it, which may be gone."""
    try:
        return str(said)
    except Exception:
        return _JVM_IS_SILENT


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes: Python's, and those that PySpark keeps of Java's."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or getattr(one, "_cause", None) or (None if one.__suppress_context__ else one.__context__)


def _texts(error: BaseException) -> Iterator[str]:
    """Class name, message and Java trace of each error in the chain: only searched, never shown."""
    for one in _chain(error):
        yield f"{type(one).__module__}.{type(one).__name__}: {text_of(one)}"
        yield str(getattr(one, "_stackTrace", "") or "")
