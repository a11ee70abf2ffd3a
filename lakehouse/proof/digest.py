"""I6: a replay leaves Gold's content unchanged, shown by digests that do not depend on row order."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lakehouse.proof.lake import Lake
from lakehouse.proof.result import Finding, Invariant
from pipelines.lake.errors import UsageError
from pipelines.lake.storage.local_files import read_text
from pipelines.lake.tables import GOLD_DAILY, GOLD_HOURLY

Digest = dict[str, dict[str, str]]
"""Table -> UTC day -> `<rows>:<digest>`."""

_TABLES = {GOLD_HOURLY: ("gold_hourly", "hour"), GOLD_DAILY: ("gold_daily", "day")}
_BOOKKEEPING = ("_updated_at", "silver_version")


def gold_digest(lake: Lake) -> Digest:
    """Digest of Gold's content, by table and day; when a row was written and from which Silver version does not count."""
    digest: Digest = {}
    for table, (name, time) in _TABLES.items():
        if table not in lake.tables:
            continue
        columns = [row[0] for row in lake.db.rows(f"DESCRIBE {name}") if row[0] not in _BOOKKEEPING]
        # Length before value: two rows cannot read the same by moving a separator.
        parts = [f"coalesce(length({column}::VARCHAR) || ':' || {column}::VARCHAR, '-')" for column in sorted(columns)]
        rows = lake.db.rows(
            f"""SELECT strftime({time}, '%Y-%m-%d') AS day, count(*) || ':' || md5(string_agg(row, '' ORDER BY row)) FROM (
                SELECT {time}, md5({" || ".join(parts)}) AS row FROM {name}) GROUP BY day ORDER BY day"""
        )
        digest[str(table)] = dict(rows)
    return digest


def write_digest(digest: Digest, path: Path) -> None:
    """Write `digest` to `path` as JSON; raises UsageError where that cannot be done."""
    try:
        path.write_text(json.dumps(digest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        msg = (
            f"The digest file {path} cannot be written ({error.strerror}); give a path in an existing folder with --write-digest."
        )
        raise UsageError(msg) from None


def read_digest(path: Path) -> Digest:
    """Read what `write_digest` wrote; raises UsageError for anything else."""
    try:
        found: Any = json.loads(read_text(path))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(days, dict) for days in found.values()):
        msg = f"The file {path} is no Gold digest; make one with `lakehouse verify --write-digest FILE` before the replay."
        raise UsageError(msg)
    return found


def check_replay(lake: Lake, before: Digest | None) -> Invariant:
    """I6: Gold has the content that it had when `before` was written."""
    result = Invariant("I6", "a replay leaves Gold's content unchanged")
    if before is None:
        result.skipped = "no digest from before the replay was given (--write-digest, replay, then --gold-digest)"
        return result
    now = gold_digest(lake)
    for table in sorted(before.keys() | now.keys()):
        was, is_ = before.get(table, {}), now.get(table, {})
        result.counts[f"{table} days"] = len(is_)
        days = sorted(day for day in was.keys() | is_.keys() if was.get(day) != is_.get(day))
        if days:
            first = tuple(f"day={day} rows {_rows(was, day)} -> {_rows(is_, day)}" for day in days[:5])
            result.findings.append(Finding(f"{table}: content of a day changed", len(days), first))
    return result


def _rows(digest: dict[str, str], day: str) -> str:
    return digest.get(day, "0:").partition(":")[0]
