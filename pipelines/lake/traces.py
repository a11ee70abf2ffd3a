"""Saves the trace of an error that nobody has foreseen: classes, conditions, frames; no messages, which may hold payload."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.lake.causes.chain import chain
from pipelines.lake.causes.frames import is_frame

_PACKAGES = ("pyspark", "delta-spark", "deltalake", "pyarrow", "duckdb", "confluent-kafka")
_NAMED = re.compile(r"^(?:Caused by: |: )?((?:[a-z_]\w*\.)+[A-Z][\w$]*)(?=[:\s]|$)")
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\]")
_SPARE = Path(tempfile.gettempdir()) / "usage-lakehouse"


class _Place:
    folder: Path = _SPARE


def keep_traces_in(folder: str) -> None:
    """Let this process save its traces below `folder`, in `errors`; where that cannot be written, below the machine's own."""
    _Place.folder = Path(folder)


def save_trace(error: BaseException) -> Path | None:
    """Write the trace and return its file; None where no folder takes it.

    The same trace has the same file, so that a process that is started again and again does not fill the disk.
    """
    body = "\n".join(_lines(error))
    name = f"error-{hashlib.sha256(body.encode()).hexdigest()[:12]}.txt"
    for folder in (_Place.folder / "errors", _SPARE / "errors"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text(f"{_head()}\n\n{body}\n", encoding="utf-8")
            return path
    return None


def _head() -> str:
    found = [f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", f"Python {sys.version.split()[0]}"]
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


def _lines(error: BaseException) -> Iterator[str]:
    for one in chain(error):
        yield f"{type(one).__module__}.{type(one).__name__} {' '.join(_conditions(one))}".rstrip()
        for frame in traceback.extract_tb(one.__traceback__):
            yield f"    {frame.filename}:{frame.lineno} in {frame.name}"
        yield from _java_lines(str(getattr(one, "_stackTrace", "") or ""))


def _conditions(error: BaseException) -> list[str]:
    """Spark's and Delta's names for what happened, as far as the first line has them."""
    try:
        first = str(error).partition("\n")[0]
    except Exception:  # one of Java's asks its JVM, which may be gone
        return []
    return _CONDITION.findall(first)


def _java_lines(trace: str) -> Iterator[str]:
    """The frames, and of the other lines the class alone."""
    for line in trace.splitlines():
        named = _NAMED.match(line)
        if is_frame(line):
            yield f"    {line.strip()}"
        elif named:
            yield f"  {named[1]}"
