"""Walks the chain of causes of an error, Python's and Java's, and reads what each of them says."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.lake.causes.frames import is_in_a_task
from pipelines.lake.errors import LakehouseError

JVM_IS_SILENT = "Answer from Java side is empty"


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes: Python's, and those that PySpark keeps of Java's."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or getattr(one, "_cause", None) or (None if one.__suppress_context__ else one.__context__)


def own_error_of(error: BaseException) -> LakehouseError | None:
    """The project's own error among an error and its causes."""
    return next((one for one in chain(error) if isinstance(one, LakehouseError)), None)


def text_of(said: object) -> str:
    """An error of Python or Java as text: one of Java's asks its JVM for it, which may be gone."""
    try:
        return str(said)
    except Exception:
        return JVM_IS_SILENT


def texts_of(error: BaseException) -> str:
    """Class name, message and Java trace of one error in the chain: only searched, never shown."""
    return f"{type(error).__module__}.{type(error).__name__}: {text_of(error)}\n{getattr(error, '_stackTrace', '') or ''}"


def trace_of(error: BaseException) -> str:
    """Messages and Java traces of the whole chain of causes, to be searched; never shown, they may hold payload values."""
    return "\n".join(texts_of(one) for one in chain(error))


def may_hold_values(error: BaseException) -> bool:
    """Whether the words of an error may be those of a record: of a task that computed on records, or of the project's own code.

    What Spark, the machine or a library says in the driver is about settings, paths and plans.
    """
    innermost = [*chain(error)][-1]
    is_ours = type(innermost).__module__ == "builtins" and not isinstance(innermost, OSError)
    return is_ours or any(is_in_a_task(texts_of(one)) for one in chain(error))
