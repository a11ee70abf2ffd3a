"""Which errors may pass by themselves: the one place that decides between transient and permanent, and how long to wait."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import tenacity

from pipelines.lake import playbooks
from pipelines.lake.errors import (
    BreakerOpenError,
    DamagedError,
    LakehouseError,
    LeaseHeldError,
    TransientError,
    UnknownFeatureError,
    UnreadableError,
    UnreadableNowError,
    own_error,
)
from pipelines.lake.families import (
    CUT_CHECKPOINT,
    ERRNO,
    FAMILIES,
    JVM_IS_SILENT,
    LOST_JVM,
    LOST_WORKER,
    NO_MEMORY,
    REFUSED,
    TABLE_FILE,
    Family,
    Kind,
)
from pipelines.lake.playbooks import page_for_files_of, path_of, table_in
from pipelines.lake.settings import RetrySettings

__all__ = [
    "POISON_PLAYBOOK",
    "Cause",
    "Kind",
    "backoff_seconds",
    "chain",
    "classify",
    "is_frame",
    "is_worth_retrying",
    "may_hold_values",
    "own_error_of",
    "page_for",
    "page_for_words",
    "text_of",
    "trace_of",
]


@dataclass(frozen=True)
class Cause:
    """What an error was taken for; `name` is a class, condition or errno, never a message, which may hold payload values."""

    kind: Kind
    name: str
    reason: str
    playbook: str
    """Path of the page that leads out; empty where an error's own sentence does."""

    @property
    def suspects_data(self) -> bool:
        """Whether a record may be behind it: surely not where the outside world is known to have failed."""
        return self.kind in (Kind.DATA, Kind.UNKNOWN) or self.reason == LOST_WORKER


_NO_MEMORY_EXIT = 3
"""Exit code of a JVM that ends by its ExitOnOutOfMemoryError, which pipelines/runtime/session.py asks for."""
_UNKNOWN = "nobody has foreseen this error"
_CLASS = re.compile(r"\b(?:[a-z_]\w*\.)+([A-Z]\w*(?:Exception|Error|Failure))\b")

POISON_PLAYBOOK = path_of(playbooks.RECORDS)
_READS_CHECKPOINT = re.compile(r"\bat \S+\.streaming\.checkpointing\.\w+\.deserialize\(|\bat \S+SourceOffset\$?\.apply\(")
"""A frame of Spark reading a checkpoint's file: what cannot be understood there is no record."""
_IN_A_TASK = re.compile(r"\bat org\.apache\.spark\.(?:scheduler\.Task\.run|executor\.Executor\$TaskRunner\.)|TASK_WRITE_FAILED")
"""A frame of an executor's task: what the driver itself does is planning, logs, ledgers and leases, and no record."""
_READS_A_LOG = re.compile(
    r"\bat org\.apache\.spark\.sql\.delta\.(?:Snapshot|SnapshotState|SnapshotManagement|Checkpoints|DeltaHistoryManager"
    r"|stats\.DataSkippingReader)\w*[.$]"
)
"""A frame of Delta reading a table's log, which it does by tasks too."""
_FRAME = re.compile(r'\s*(?:at \S+\(|File ")')
"""A line of a stack: it names classes that failed nothing."""


def classify(error: BaseException) -> Cause:
    """Say whether the work behind `error` may succeed later, by classes and conditions of the whole chain of causes.

    A record is suspected only where a task failed that was computing on records. What nobody has foreseen is UNKNOWN: it is
    retried, since the work is idempotent, and the number of retries is bounded.
    """
    cause = _cause(error)
    if cause.reason == LOST_JVM and _jvm_exit_code() == _NO_MEMORY_EXIT:
        # The error that its JVM ran into has not reached Python.
        return Cause(Kind.PERMANENT, "OutOfMemoryError", NO_MEMORY, cause.playbook)
    return cause


def _cause(error: BaseException) -> Cause:
    trace = trace_of(error)
    text = _without_frames(trace)
    own = own_error_of(error) or own_error(text)
    if own is not None:
        return _own_cause(own)
    for one in chain(error):
        if isinstance(one, ConnectionError) and _is_in_py4j(one):
            return Cause(Kind.PERMANENT, type(one).__name__, LOST_JVM, path_of(playbooks.PROCESS))
        if isinstance(one, OSError) and one.errno in ERRNO:
            kind, reason, playbook = ERRNO[one.errno]
            return Cause(kind, errno.errorcode[one.errno], reason, path_of(playbook))
    may_be_a_record = bool(_IN_A_TASK.search(trace)) and not _READS_A_LOG.search(trace)
    for family in FAMILIES:
        found = family.pattern.search(text)
        if found is None or (family.in_a_task and not may_be_a_record):
            continue
        name = found[0].rsplit(".", 1)[-1] if "." in found[0] else found[0]
        return Cause(family.kind, name, family.reason, path_of(_page(family, text[found.start() :])))
    if _READS_CHECKPOINT.search(trace):
        return Cause(Kind.PERMANENT, _last_class(error), CUT_CHECKPOINT, path_of(playbooks.CHECKPOINTS))
    return Cause(Kind.UNKNOWN, _last_class(error), _UNKNOWN, path_of(playbooks.UNKNOWN))


def page_for(error: BaseException, table: str) -> str:
    """Path of the page for an error that was met while `table` was read."""
    return path_of(_of_table(classify(error).playbook, table))


_DeltaError = type("DeltaError", (Exception,), {})
"""Stands for deltalake's error of that name, whose import takes longer than all else here."""


def page_for_words(words: str, table: str | None = None, otherwise: str | None = None) -> str:
    """Name of the page for an error of which only the words are left, as in the facts of the doctor: that of the error itself.

    `table` is the one that was read; where nobody knows the words it is taken for damaged, else for `otherwise`.
    """
    cause = classify(_DeltaError(words))
    if cause.kind is Kind.UNKNOWN:
        return page_for_files_of(table) if table else otherwise or playbooks.UNKNOWN
    return _of_table(cause.playbook, table)


def _of_table(path: str, table: str | None) -> str:
    page = path.removeprefix("playbooks/").removesuffix(".md")
    return page_for_files_of(table) if table and page == playbooks.TABLE_FILES else page


def _page(family: Family, found: str) -> str:
    """The family's page; of a table's files the one for that table, if the line that was found names it."""
    table = table_in(found.partition("\n")[0]) if family.playbook == playbooks.TABLE_FILES else None
    return page_for_files_of(table) if table else family.playbook


def _last_class(error: BaseException) -> str:
    """Class of the innermost cause; where that stands for one of Java's, the last class that Java's trace names."""
    innermost = [*chain(error)][-1]
    named = _CLASS.findall(_without_frames(_texts_of(innermost)))
    return named[-1] if named else type(innermost).__name__


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same work may succeed later, as far as anybody knows."""
    return classify(error).kind in (Kind.TRANSIENT, Kind.UNKNOWN)


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


def may_hold_values(error: BaseException) -> bool:
    """Whether the words of an error may be those of a record: of a task that computed on records, or of the project's own code.

    What Spark, the machine or a library says in the driver is about settings, paths and plans.
    """
    innermost = [*chain(error)][-1]
    is_ours = type(innermost).__module__ == "builtins" and not isinstance(innermost, OSError)
    return is_ours or any(_IN_A_TASK.search(_texts_of(one)) for one in chain(error))


def own_error_of(error: BaseException) -> LakehouseError | None:
    """The project's own error among an error and its causes."""
    return next((one for one in chain(error) if isinstance(one, LakehouseError)), None)


def _own_cause(error: LakehouseError) -> Cause:
    name, playbook = type(error).__name__, error.playbook and path_of(error.playbook)
    kind, reason = Kind.PERMANENT, "an operator has to decide"
    if isinstance(error, BreakerOpenError):
        kind, reason = Kind.HELD, "too many dead letters"
    elif isinstance(error, LeaseHeldError):
        kind, reason = Kind.TRANSIENT, "another writer holds the lease"
    elif isinstance(error, UnreadableNowError):
        kind, reason = Kind.TRANSIENT, "a file is not readable now"
    elif isinstance(error, TransientError):
        kind, reason = Kind.TRANSIENT, "the outside world did not answer"
    elif isinstance(error, UnreadableError):
        reason = REFUSED
    elif isinstance(error, UnknownFeatureError):
        reason = "a table has a feature that is not understood"
    elif isinstance(error, DamagedError):
        reason = TABLE_FILE
    return Cause(kind, name, reason, playbook or "")


def text_of(said: object) -> str:
    """An error of Python or Java as text: one of Java's asks its JVM for it, which may be gone."""
    try:
        return str(said)
    except Exception:
        return JVM_IS_SILENT


def trace_of(error: BaseException) -> str:
    """Messages and Java traces of the whole chain of causes, to be searched; never shown, they may hold payload values."""
    return "\n".join(_texts_of(one) for one in chain(error))


def is_frame(line: str) -> bool:
    """Whether a line of a trace is a frame of Python or Java."""
    return bool(_FRAME.match(line))


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes: Python's, and those that PySpark keeps of Java's."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or getattr(one, "_cause", None) or (None if one.__suppress_context__ else one.__context__)


def _texts_of(error: BaseException) -> str:
    """Class name, message and Java trace of one error in the chain: only searched, never shown."""
    return f"{type(error).__module__}.{type(error).__name__}: {text_of(error)}\n{getattr(error, '_stackTrace', '') or ''}"


def _without_frames(trace: str) -> str:
    return "\n".join(line for line in trace.splitlines() if not is_frame(line))
