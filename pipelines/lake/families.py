"""Families of errors from outside: the kind, the reason and the playbook of each, by classes and conditions in a trace."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from pipelines.lake.playbooks import (
    CHECKPOINTS,
    DISK,
    ENVIRONMENT,
    KAFKA,
    LOST_OFFSETS,
    PERMISSION,
    PROCESS,
    RECORDS,
    STORE,
    TABLE,
)
from pipelines.lake.playbooks import TABLE_FILES as FILES


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
    UNKNOWN = "unknown"
    """Nobody has foreseen it: retry, since the work is idempotent, but not for ever, and save its trace."""


LOST_JVM = "the JVM of this process is gone"
NO_MEMORY = "memory is exhausted"
JVM_IS_SILENT = "Answer from Java side is empty"
LOST_WORKER = "a worker was lost"
REFUSED = "access is refused"
CUT_CHECKPOINT = "a checkpoint is cut"
LIMIT = "a limit of the machine is reached"
TABLE_FILE = "a file of a table is missing or cut"


@dataclass(frozen=True)
class Family:
    """Errors with one way out; `in_a_task`: only where an executor's task failed that was computing on records."""

    kind: Kind
    reason: str
    playbook: str
    patterns: tuple[str, ...]
    in_a_task: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Compiled where there is an error to name: commands that have none need not wait for it."""
        return re.compile("|".join(self.patterns))


def _family(kind: Kind, reason: str, playbook: str, *patterns: str, in_a_task: bool = False) -> Family:
    return Family(kind, reason, playbook, patterns, in_a_task)


_T, _P, _D = Kind.TRANSIENT, Kind.PERMANENT, Kind.DATA
_LIBRDKAFKA = r"(?<=KafkaError\{code=)"
FAMILIES = (
    # The first that fits wins. A trace holds the whole chain of causes, so what is certain comes before what is general.
    _family(
        _P,
        LOST_JVM,
        PROCESS,
        r"Py4JNetworkError",
        JVM_IS_SILENT,
        # What Python is told where the answer was cut; with a trace it is an error of a JVM that lives.
        r"protocol\.Py4JError(?=: An error occurred while calling (?!.*Trace:))",
    ),
    _family(
        _P,
        "offsets that were to be read are gone",
        LOST_OFFSETS,
        r"KAFKA_DATA_LOSS[.\w]*",
        r"OffsetOutOfRangeException",
        r"may have been lost because they are not available in Kafka",
    ),
    _family(
        _P,
        CUT_CHECKPOINT,
        CHECKPOINTS,
        # Hadoop's own checksum, of a file of the checkpoint: of a table's it is a family below.
        r"ChecksumException(?=[^\n]*/(?:offsets|commits|sources|state|metadata|lakehouse\.json)\b)",
    ),
    # Limits and permissions first: Java says them within a FileNotFoundException, and Spark within one of its own.
    _family(
        _P,
        LIMIT,
        ENVIRONMENT,
        r"Too many open files",
        r"unable to create (?:new )?native thread",
        r"[Cc]an't start new thread",
        r"File name too long",
        # Hadoop says no more where the kernel lists no folder; one that may not be listed shows itself elsewhere first.
        r"Invalid directory or I/O error occurred for dir",
        r"Malformed input or input contains unmappable characters",
    ),
    _family(
        _P,
        "the program is not whole, or not the right version",
        ENVIRONMENT,
        r"ClassNotFoundException",
        r"NoClassDefFoundError",
        r"NoSuchMethodError",
        r"UnsupportedClassVersionError",
        r"DATA_SOURCE_NOT_FOUND",
        r"JAVA_GATEWAY_EXITED",
        r"'JavaPackage' object is not callable",
        r"ModuleNotFoundError|ImportError",
        r"FileNotFoundError(?=: [^\n]*'(?:[^'\n]*/)?(?:java|spark-submit)')",
    ),
    _family(
        _P,
        REFUSED,
        PERMISSION,
        r"FileNotFoundException(?=: [^\n]*\(Permission denied\))",
        r"AccessDeniedException(?=: (?:file:)?/)",
        r"AccessControlException(?=: (?:Permission denied|[^\n]*file:/))",
        r"(?:PermissionError|OSError|DeltaError)(?=[^\n]*Permission denied)",
        r"PermissionError",
        r"Permission denied",
        r"Operation not permitted",
    ),
    _family(
        _P,
        "a table is not as the project made it: its properties, features or schema",
        TABLE,
        r"DELTA_CANNOT_MODIFY_APPEND_ONLY",
        r"DELTA_(?:MISSING_CHANGE_DATA|CHANGE_TABLE_FEED_DISABLED|CHANGE_DATA_FILE_NOT_FOUND|MISSING_CDC\w*)",
        r"FAILED_READ_FILE\.FILE_NOT_EXIST(?=[^\n]*/_change_data/)",
        r"DELTA_(?:UNSUPPORTED_FEATURES?|FEATURES?|INVALID_PROTOCOL|READ_FEATURE|TABLE_FEATURE)_?\w*",
        r"DELTA_\w*COLUMN_MAPPING\w*",
        r"DELTA_(?:NOT_NULL_CONSTRAINT|VIOLATE_CONSTRAINT|NEW_NOT_NULL|NEW_CHECK)\w*",
        r"DELTA_SOURCE_(?:TABLE_)?IGNORE_(?:DELETE|CHANGES)\w*",
        r"DELTA_STREAMING_(?:INCOMPATIBLE_SCHEMA|SCHEMA|METADATA|CANNOT_CONTINUE)\w*",
        r"InvalidProtocolVersionException|DeltaProtocolError",
        r"DeltaError(?=: [^\n]*(?:Feature '\w+' is not supported|failed validation check))",
        r"(?:DeltaError|CommitFailedError)(?=: [^\n]*append-only)",
    ),
    _family(
        _P,
        TABLE_FILE,
        FILES,
        r"FAILED_READ_FILE\.FILE_NOT_EXIST",
        r"DELTA_(?:FILE_NOT_FOUND|TRUNCATED_TRANSACTION_LOG|VERSIONS_NOT_CONTIGUOUS|STATE_RECOVER_ERROR)\w*",
        r"DELTA_LOG_FILE_NOT_FOUND(?!_FOR_STREAMING)\w*",
        r"ChecksumException",
        r"CANNOT_READ_FILE_FOOTER|is not a Parquet file",
        r"ArrowInvalid(?=:[^\n]*Parquet)|Parquet magic bytes not found",
        r"Couldn't deserialize thrift|Unexpected end of stream|Corrupt (?:footer|snappy|zstd|compressed)",
        r"ZSTD decompression failed",
        r"FileNotFoundE(?:rror|xception)(?=:[^\n]*(?:\.parquet|_delta_log))",
        r"Object at location [^\n]* not found",
        r"DeltaError(?=: [^\n]*(?:Json error|No table metadata|Expected contiguous commit files|Parquet error))",
    ),
    _family(
        _P,
        CUT_CHECKPOINT,
        CHECKPOINTS,
        r"(?:Incomplete|Malformed) log file",
        r"CANNOT_LOAD_STATE_STORE[.\w]*",
        r"STATE_STORE_\w*CHECKSUM\w*",
        r"InvalidProtocolBufferException",
        r"FileNotFoundException(?=:[^\n]*/(?:offsets|commits|sources|state)/)",
    ),
    _family(
        _P,
        "Kafka refuses this client",
        KAFKA,
        r"kafka\.common\.errors\.\w*Auth(?:entication|orization)\w*Exception",
        r"kafka\.common\.config\.ConfigException",
        rf"{_LIBRDKAFKA}(?:_AUTHENTICATION|_INVALID_ARG|_SSL|\w+_(?:AUTHENTICATION|AUTHORIZATION)_FAILED"
        r"|UNSUPPORTED_SASL_MECHANISM|ILLEGAL_SASL_STATE)\b",
    ),
    _family(
        _P,
        REFUSED,
        STORE,
        r"AccessDeniedException",
        r"AccessControlException",
        r"\w*AuthorizationException",
        r"\w*AuthenticationException",
        r"NoAuthWithAWSException",
        r"CredentialInitializationException",
        r"SSL(?:Handshake|PeerUnverified)Exception|Certificate\w*Exception",
        r"Read-only file system",
    ),
    _family(_P, "the disk or the mount reports an error", STORE, r"Input/output error"),
    _family(_P, NO_MEMORY, PROCESS, r"OutOfMemoryError", r"MemoryError", r"Cannot allocate memory"),
    _family(
        _T,
        "another writer committed first, or the table changed under the reader",
        PROCESS,
        r"Concurrent(?:Append|DeleteRead|DeleteDelete|Transaction|Write|Modification)Exception",
        r"(?:Metadata|Protocol)ChangedException",
        r"DELTA_CONCURRENT_\w+",
        r"DELTA_SCHEMA_CHANGE(?:D\w*|_SINCE_ANALYSIS)",
        r"CommitFailedError",
        r"FileAlreadyExistsException",
    ),
    _family(_T, "a disk is full", DISK, r"No space left on device", r"Disk quota exceeded", r"DiskErrorException"),
    _family(
        _T,
        "Kafka does not answer",
        KAFKA,
        r"kafka\.common\.errors\.(?:Timeout|Disconnect|Network|Retriable|\w*NotAvailable|NotLeaderOrFollower|NotCoordinator"
        r"|UnknownTopicOrPartition|UnknownTopicId|NotEnoughReplicas\w*|BrokerNotAvailable|KafkaStorage|\w*Epoch)\w*Exception",
        r"kafka\.\w+\.\w*TimeoutException",
        r"No resolvable bootstrap urls",
        rf"{_LIBRDKAFKA}(?:_TRANSPORT|_ALL_BROKERS_DOWN|_RESOLVE|_WAIT_COORD|_WAIT_CACHE|_DESTROY|_UNKNOWN_(?:TOPIC|PARTITION)"
        r"|\w*(?:TIMED_OUT|NOT_AVAILABLE|LOAD_IN_PROGRESS)|NETWORK_EXCEPTION|UNKNOWN_TOPIC_\w+|NOT_(?:LEADER|COORDINATOR)\w*"
        r"|NOT_ENOUGH_REPLICAS\w*|KAFKA_STORAGE_ERROR|\w*LEADER_EPOCH)\b",
    ),
    _family(
        _T,
        "the object store or the network does not answer",
        STORE,
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
        r"Connection reset|[Cc]onnection refused",
        r"Broken pipe",
        r"Stale file handle",
        r"ConnectionError|ConnectionResetError|ConnectionRefusedError|BrokenPipeError|ConnectionAbortedError",
        r"TimeoutError",
        r"ClosedChannelException",
    ),
    _family(
        _T,
        LOST_WORKER,
        PROCESS,
        r"ExecutorLostFailure",
        r"FetchFailed\w*",
        r"Python worker exited unexpectedly",
        r"PYTHON_WORKER_\w+",
    ),
    _family(
        _T,
        "a part of Spark did not answer in time",
        PROCESS,
        r"(?:java\.util\.concurrent\.|Rpc)TimeoutException",
    ),
    _family(
        _P,
        "a table's columns are not those that are expected",
        TABLE,
        r"UNRESOLVED_COLUMN[.\w]*",
        r"SchemaMismatchError",
        r"DELTA_\w*SCHEMA\w*",
        r"DELTA_\w*(?:COLUMN|TYPE)\w*MISMATCH\w*",
        r"DELTA_(?:FAILED_TO_MERGE_FIELDS|MERGE_UNRESOLVED_EXPRESSION|MERGE_INCOMPATIBLE_\w+|COLUMN_NOT_FOUND\w*)",
        r"SchemaColumnConvertNotSupportedException",
        r"FAILED_READ_FILE\.PARQUET_COLUMN_DATA_TYPE_MISMATCH",
        r"INCOMPATIBLE_(?:DATA|COLUMN)\w*",
    ),
    _family(
        _P,
        "a checkpoint does not fit",
        CHECKPOINTS,
        r"STREAMING_CHECKPOINT\w*|\bCHECKPOINT_\w+",
        r"INVALID_LOG_VERSION[.\w]*",
        r"batch \d+ doesn't exist",
        r"DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING\w*",
        r"DELTA_STREAMING_\w+|DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE",
        r"_LEGACY_ERROR_TEMP_30\d\d",
    ),
    _family(
        _P,
        "a table is not there",
        FILES,
        r"DELTA_(?:TABLE_NOT_FOUND|MISSING_DELTA_TABLE|PATH_DOES_NOT_EXIST|TABLE_ONLY_OPERATION)\w*",
        r"TABLE_OR_VIEW_NOT_FOUND",
        r"PATH_NOT_FOUND",
        r"TableNotFoundError",
    ),
    _family(
        _P,
        "Spark's own files of this run are gone",
        PROCESS,
        r"(?:FileNotFoundException|NoSuchFileException)(?=:[^\n]*/(?:blockmgr|spark)-[0-9a-f]{8}-)",
    ),
    _family(_P, "a file is missing", FILES, r"FAILED_READ_FILE[.\w]*"),
    _family(
        _D,
        "a record cannot be processed",
        RECORDS,
        # By the SQL standard these are of values: a number or a time that is no such, or too large.
        r"SQLSTATE: 220(?:03|07|08|12|18)",
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
        in_a_task=True,
    ),
)

ERRNO = {
    errno.ENOSPC: (_T, "a disk is full", DISK),
    errno.EDQUOT: (_T, "a disk is full", DISK),
    errno.EACCES: (_P, REFUSED, PERMISSION),
    errno.EPERM: (_P, REFUSED, PERMISSION),
    errno.EROFS: (_P, REFUSED, STORE),
    errno.EMFILE: (_P, LIMIT, ENVIRONMENT),
    errno.ENFILE: (_P, LIMIT, ENVIRONMENT),
    errno.ENAMETOOLONG: (_P, LIMIT, ENVIRONMENT),
    errno.EFBIG: (_P, LIMIT, ENVIRONMENT),
    errno.ENOLCK: (_P, LIMIT, ENVIRONMENT),
    errno.ENOTDIR: (_P, "a path of the lake is a file where a folder is expected, or the other way round", PERMISSION),
    errno.EISDIR: (_P, "a path of the lake is a file where a folder is expected, or the other way round", PERMISSION),
    errno.ELOOP: (_P, "a path of the lake is a file where a folder is expected, or the other way round", PERMISSION),
    errno.EIO: (_P, "the disk or the mount reports an error", STORE),
    errno.ESTALE: (_T, "the object store or the network does not answer", STORE),
    errno.ETIMEDOUT: (_T, "the object store or the network does not answer", STORE),
    errno.EHOSTUNREACH: (_T, "the object store or the network does not answer", STORE),
    errno.ENETUNREACH: (_T, "the object store or the network does not answer", STORE),
    errno.EHOSTDOWN: (_T, "the object store or the network does not answer", STORE),
    errno.ENOTCONN: (_T, "the object store or the network does not answer", STORE),
    errno.ENOMEM: (_P, NO_MEMORY, PROCESS),
}
"""Errors of the operating system by number; those of a connection are classes of their own."""
