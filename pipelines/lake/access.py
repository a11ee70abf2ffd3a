"""Looks, before a job makes anything, whether it may read and write what it needs on the local file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.lake.delta_log.opening import has_table
from pipelines.lake.errors import UsageError
from pipelines.lake.lease.checkpoints import CHECKPOINT_LOCK_FILES
from pipelines.lake.lease.layers import lease_files
from pipelines.lake.places import is_local
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import look, names_in, unreadable
from pipelines.lake.tables import (
    ADJUSTMENTS,
    ALL_TABLES,
    BRONZE,
    BRONZE_ARCHIVE,
    CANDIDATES,
    CIRCUIT_BREAKER,
    DLQ,
    GOLD_BY_KEY,
    GOLD_DAILY,
    GOLD_HOURLY,
    KNOWN_GAPS,
    LEDGER,
    QUALITY_RESULTS,
    RECONCILIATION,
    SILVER,
    TableName,
)

_READ, _WRITE = os.R_OK | os.X_OK, os.R_OK | os.W_OK | os.X_OK
_EFFECTIVE = os.access in os.supports_effective_ids

READS: dict[str, tuple[TableName, ...]] = {
    "silver": (BRONZE, BRONZE_ARCHIVE),
    "gold": (SILVER,),
    "reconcile": (SILVER,),
}
WRITES: dict[str, tuple[TableName, ...]] = {
    "bronze": (BRONZE, KNOWN_GAPS, BRONZE_ARCHIVE, LEDGER),
    "silver": (SILVER, DLQ, CIRCUIT_BREAKER, LEDGER),
    "gold": (GOLD_BY_KEY, GOLD_HOURLY, GOLD_DAILY, LEDGER),
    "reconcile": (GOLD_HOURLY, GOLD_DAILY, ADJUSTMENTS, CANDIDATES, RECONCILIATION, QUALITY_RESULTS),
}
_LEASES = {"bronze": "bronze", "silver": "silver", "gold": "gold", "reconcile": "gold"}


def no_lake(settings: Settings) -> UsageError:
    """Say that the lake has no table at all."""
    return UsageError(f"There is no lake at {settings.lake.root} yet; `lakehouse demo` makes one, or correct `lake.root`.")


def require_lake(settings: Settings) -> None:
    """Raise UsageError where the lake has no table at all, UnreadableError where nobody can tell."""
    if not any([has_table(name.path(settings)) for name in ALL_TABLES]):
        raise no_lake(settings)


def require_access(settings: Settings, job: str, checkpoint: str | None = None) -> None:
    """Refuse to start `job` (on `checkpoint`) where this user may not read its sources, or not write its tables.

    What is absent has to have a folder above it in which the job may make it. Raises UnreadableError with one sentence, before
    anything is made; object stores say so themselves, by 403.
    """
    for name in READS.get(job, ()):
        _require_table(name.path(settings), _READ)
    for name in WRITES[job]:
        _require_table(name.path(settings), _WRITE)
    for path in lease_files(settings, _LEASES[job]):
        _require_file(path)
    if checkpoint is not None and is_local(checkpoint):
        _require_checkpoint(Path(checkpoint))


def _require_table(path: str, how: int) -> None:
    if not is_local(path):
        return
    for place in (Path(path), Path(path) / "_delta_log"):
        _require(place, how)


def _require_file(path: Path) -> None:
    _require(path.parent, _WRITE)
    if look(path) is not None:
        _require(path, os.R_OK | os.W_OK)


def _require_checkpoint(path: Path) -> None:
    _require(path, _WRITE)
    for name in names_in(path):
        is_folder = (path / name).is_dir()
        _require(path / name, _WRITE if is_folder else os.R_OK | (os.W_OK if name in CHECKPOINT_LOCK_FILES else 0))


def _require(place: Path, how: int) -> None:
    """Raise UnreadableError where this user may not use `place` so; of what is absent, where it may not make it."""
    if look(place) is None:
        if how & os.W_OK:
            _require(next(_existing(place)), _WRITE)
        return
    for right, done in ((how & (os.R_OK | os.X_OK), "readable"), (how & os.W_OK, "writable")):
        if right and not _may(place, right):
            raise unreadable(place, PermissionError(errno.EACCES, ""), done)


def _existing(place: Path) -> Iterator[Path]:
    return (one for one in place.absolute().parents if look(one) is not None)


def _may(place: Path, how: int) -> bool:
    return os.access(place, how, effective_ids=True) if _EFFECTIVE else os.access(place, how)
