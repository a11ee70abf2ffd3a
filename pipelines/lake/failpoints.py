"""Named points beside each durable step where tests kill the driver; off, and free, unless `LAKEHOUSE_FAIL_AT` is set.

`LAKEHOUSE_FAIL_AT=silver.after_append:2` kills this process and its JVM with SIGKILL the second time that point is passed.
`LAKEHOUSE_FAIL_AT=silver.after_append:2:raise` raises a TransientError the first two times instead.
`LAKEHOUSE_FAIL_AT=silver.after_append:2:defect` raises an error of Python instead, as a mistake of the project would.
`LAKEHOUSE_FAIL_AT=@FILE` kills at the first point that FILE names: a driver that runs already is told where to die.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

from pipelines.lake.errors import TransientError

VARIABLE = "LAKEHOUSE_FAIL_AT"

POINTS = (
    "bronze.before_append",
    "bronze.after_append",
    "bronze.after_ledger",
    "silver.before_append",
    "silver.after_append",
    "silver.after_replace",
    "silver.after_dead_letters",
    "silver.after_ledger",
    "replay.after_claim",
    "replay.after_sink",
    "gold.before_by_key",
    "gold.after_by_key",
    "gold.after_hourly",
    "gold.after_daily",
    "gold.after_ledger",
    "reconcile.after_evidence",
    "reconcile.after_candidate",
    "reconcile.after_audit",
    "reconcile.after_hourly",
    "reconcile.after_daily",
    "reconcile.after_adjustments",
    "reconcile.after_publishing",
    "rollback.after_restore",
    "rollback.after_void",
    "rebuild.after_swap",
    "rebuild.after_letters",
    "archive.after_copy",
    "archive.after_manifest",
    "archive.after_record",
    "archive.after_delete",
)

_TARGET, _TIMES, _KIND = (*os.environ.get(VARIABLE, "").split(":"), "", "")[:3]
_passed: Counter[str] = Counter()
_killed_first: list[int] = []


def kill_first(pid: int) -> None:
    """Let the process `pid` die before this one: a JVM must not get to finish what it is doing."""
    _killed_first.append(pid)


def reach(point: str) -> None:
    """Die (or raise) here if this is the point, and the time, that was asked for."""
    if not _TARGET:
        return
    if _TARGET.startswith("@"):
        with suppress(FileNotFoundError):
            if Path(_TARGET[1:]).read_text(encoding="utf-8") == point:
                _die(point)
        return
    if point != _TARGET:
        return
    _passed[point] += 1
    if _KIND in ("raise", "defect"):
        if _passed[point] <= int(_TIMES or 1):
            if _KIND == "defect":
                raise RuntimeError(point)
            msg = f"The failpoint {point} raised, as {VARIABLE} asks; try again, or unset the variable."
            raise TransientError(msg)
        return
    if _passed[point] == int(_TIMES or 1):
        _die(point)


def _die(point: str) -> None:
    for pid in _killed_first:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.write(2, f"killed at the failpoint {point}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
