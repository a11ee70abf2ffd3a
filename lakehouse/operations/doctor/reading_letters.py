"""Counts of open dead letters; of those without a schema, whether their version has a file by now."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date

from deltalake import DeltaTable

from lakehouse.operations.checkpoints.lake_tables import find_table
from lakehouse.operations.dead_letters.filters import LetterFilter
from lakehouse.operations.dead_letters.letters import COUNTED, count_by, read_letters, unfinished_replays
from lakehouse.operations.doctor.facts import Letters
from lakehouse.operations.doctor.letters import NO_SCHEMA
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import files_in
from pipelines.lake.tables import DLQ

_MOST_BYTES_READ = 20_000
"""Letters whose bytes are read at the most: the newest day stands for all where there are more."""


def read_letter_facts(settings: Settings) -> Letters:
    """Count the letters; a lake without dead letters has none."""
    table = find_table(settings, DLQ)
    if table is None:
        return Letters()
    rows = read_letters(table, LetterFilter(), COUNTED)
    states = rows.column("_status").to_pylist()
    open_by: dict[str, dict[date, int]] = {}
    for group in count_by(rows):
        if group["open"]:
            open_by.setdefault(group["rule"], {})[_day(group["date"])] = group["open"]
    waiting = open_by.get(NO_SCHEMA, {})
    return Letters(
        total=rows.num_rows,
        open=states.count("open"),
        open_by=open_by,
        now_known=_now_known(settings, table, waiting) if waiting else {},
        stuck=tuple(unfinished_replays(table)),
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:  # Kafka's time goes on after Python's calendar has ended
        return date.max


def _now_known(settings: Settings, table: DeltaTable, waiting: dict[date, int]) -> dict[str, int]:
    """How many of the letters name a version that has a schema file, by version; no other value of theirs is kept."""
    versions = {path.stem for path in files_in(settings.schemas_dir, "*.json")}
    newest = max(waiting)
    days = None if sum(waiting.values()) <= _MOST_BYTES_READ else (newest, newest)
    chosen = LetterFilter(rules=(NO_SCHEMA,), status="open", days=days)
    found: Counter[str] = Counter()
    for value in read_letters(table, chosen, ("_raw_value",)).column("_raw_value").to_pylist():
        version = _version(value)
        if version in versions:
            found[version] += 1
    return dict(sorted(found.items()))


def _version(value: bytes | None) -> str:
    try:
        tree = json.loads(value or b"")
    except ValueError:
        return ""
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    return version if isinstance(version, str) else ""
