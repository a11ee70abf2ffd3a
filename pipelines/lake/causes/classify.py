"""Decides which errors may pass by themselves: the one place that tells transient, permanent and unknown apart."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import traceback

from pipelines.lake import playbooks
from pipelines.lake.causes.cause import Cause, Kind
from pipelines.lake.causes.chain import chain, own_error_of, texts_of, trace_of
from pipelines.lake.causes.families.family import Family
from pipelines.lake.causes.families.order import FAMILIES
from pipelines.lake.causes.families.os_errors import ERRNO
from pipelines.lake.causes.frames import computes_on_records, reads_checkpoint, without_frames
from pipelines.lake.causes.reasons import CUT_CHECKPOINT, LOST_JVM, NO_MEMORY, REFUSED, TABLE_FILE
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
from pipelines.lake.playbooks import page_for_files_of, path_of, table_in

_NO_MEMORY_EXIT = 3
"""Exit code of a JVM that ends by its ExitOnOutOfMemoryError, which pipelines/runtime/session.py asks for."""
_UNKNOWN = "nobody has foreseen this error"
_CLASS = re.compile(r"\b(?:[a-z_]\w*\.)+([A-Z]\w*(?:Exception|Error|Failure))\b")


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


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same work may succeed later, as far as anybody knows."""
    return classify(error).kind in (Kind.TRANSIENT, Kind.UNKNOWN)


def _cause(error: BaseException) -> Cause:
    trace = trace_of(error)
    text = without_frames(trace)
    own = own_error_of(error) or own_error(text)
    if own is not None:
        return _own_cause(own)
    for one in chain(error):
        if isinstance(one, ConnectionError) and _is_in_py4j(one):
            return Cause(Kind.PERMANENT, type(one).__name__, LOST_JVM, path_of(playbooks.PROCESS))
        if isinstance(one, OSError) and one.errno in ERRNO:
            kind, reason, playbook = ERRNO[one.errno]
            return Cause(kind, errno.errorcode[one.errno], reason, path_of(playbook))
    may_be_a_record = computes_on_records(trace)
    for family in FAMILIES:
        found = family.pattern.search(text)
        if found is None or (family.in_a_task and not may_be_a_record):
            continue
        name = found[0].rsplit(".", 1)[-1] if "." in found[0] else found[0]
        return Cause(family.kind, name, family.reason, path_of(_page(family, text[found.start() :])))
    if reads_checkpoint(trace):
        return Cause(Kind.PERMANENT, _last_class(error), CUT_CHECKPOINT, path_of(playbooks.CHECKPOINTS))
    return Cause(Kind.UNKNOWN, _last_class(error), _UNKNOWN, path_of(playbooks.UNKNOWN))


def _page(family: Family, found: str) -> str:
    """The family's page; of a table's files the one for that table, if the line that was found names it."""
    table = table_in(found.partition("\n")[0]) if family.playbook == playbooks.TABLE_FILES else None
    return page_for_files_of(table) if table else family.playbook


def _last_class(error: BaseException) -> str:
    """Class of the innermost cause; where that stands for one of Java's, the last class that Java's trace names."""
    innermost = [*chain(error)][-1]
    named = _CLASS.findall(without_frames(texts_of(innermost)))
    return named[-1] if named else type(innermost).__name__


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
