"""Reads dead letters without a JVM, and never their payload unless one record is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from lakehouse.operations.dead_letters.filters import LetterFilter
from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.delta_log.plain_read import rows_dataset, to_rows, to_values
from pipelines.lake.errors import UsageError
from pipelines.lake.places import place_of
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import DLQ

Longs = npt.NDArray[np.int64]

METADATA = (
    "_kafka_topic",
    "_kafka_partition",
    "_kafka_offset",
    "_kafka_timestamp",
    "_quality_flags",
    "_error_message",
    "_stage",
    "_dlq_date",
    "_status",
    "_attempts",
    "_replay_id",
    "_dead_lettered_at",
    "_last_attempt_at",
    "_closed_at",
    "_reason",
    "_kafka_timestamp_ms",
)
"""All columns but the record's bytes."""
LATER_COLUMNS = {"_last_attempt_at": "timestamp", "_closed_at": "timestamp", "_reason": "string"}
"""Columns that a table of an earlier version does not have, with their Delta types; who changes a letter's state adds them."""
_ABSENT_COLUMNS = {**LATER_COLUMNS, "_kafka_timestamp_ms": "long"}
"""Columns that are read as NULL from such a table."""
_ARROW = {"timestamp": pa.timestamp("us", tz="UTC"), "string": pa.string(), "long": pa.int64()}


def open_letters(settings: Settings) -> DeltaTable:
    """Open the dead-letter table; raises UsageError where there is none, and as `opening.open_table`."""
    path = DLQ.path(settings)
    table = open_table(path)
    if table is None:
        msg = f"There is no dead-letter table at {path}; run the Silver job first, or correct `lake.root`."
        raise UsageError(msg)
    return table


def read_letters(table: DeltaTable, chosen: LetterFilter, columns: Sequence[str] = METADATA) -> pa.Table:
    """The `columns` of the letters that `chosen` means, in no order."""
    dataset = rows_dataset(table, _bounds(chosen))
    asked = (("_quality_flags", chosen.rules), ("_status", chosen.status))
    needed = [*columns, *(name for name, wanted in asked if wanted and name not in columns)]
    with told_apart(place_of(table)):
        rows = dataset.to_table(columns=[name for name in needed if name in dataset.schema.names], filter=_expression(chosen))
    for name, kind in _ABSENT_COLUMNS.items():
        if name in needed and name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, _ARROW[kind]))
    if chosen.status:
        # Not sooner: pyarrow pushes no comparison of text into the files that deltalake's update writes (string views).
        rows = rows.filter(pc.equal(rows.column("_status"), chosen.status))
    if chosen.rules:
        rows = rows.filter(_breaks_one(rows.column("_quality_flags"), chosen.rules))
    return rows.select(list(columns))


def read_letter(table: DeltaTable, partition: int, offset: int) -> dict[str, Any]:
    """One letter: METADATA, `_raw_value`, and sizes and number of what else came with it.

    Raises UsageError where there is none at that place.
    """
    chosen = LetterFilter(partition=partition, offsets=(offset, offset))
    rows = read_letters(table, chosen, [*METADATA, "_raw_value", "_kafka_key", "_kafka_headers"])
    if not rows.num_rows:
        msg = f"There is no dead letter at {partition}:{offset}; `lakehouse dlq list` shows those that there are."
        raise UsageError(msg)
    row = to_rows(rows)[0]
    key, headers, value = row.pop("_kafka_key"), row.pop("_kafka_headers"), row["_raw_value"]
    sizes = {"value_bytes": None if value is None else len(value), "key_bytes": None if key is None else len(key)}
    return {**row, **sizes, "headers": None if headers is None else len(headers)}


def unfinished_replays(table: DeltaTable) -> list[str]:
    """Ids of replays that died before they had closed, or left open, all that they claimed."""
    rows = read_letters(table, LetterFilter(status="open"), ("_status", "_replay_id", "_last_attempt_at"))
    return sorted(set(rows.filter(is_claimed(rows)).column("_replay_id").to_pylist()))


def coordinates_of(rows: pa.Table) -> Longs:
    """Partition and offset of each row in one long, as the pipeline packs them."""
    partition, offset = (rows.column(name).to_numpy().astype(np.int64) for name in ("_kafka_partition", "_kafka_offset"))
    packed: Longs = (partition << 48) | offset
    return packed


def is_claimed(rows: pa.Table) -> pa.ChunkedArray:
    """Which of the rows a replay has claimed that has not finished."""
    is_open = pc.equal(rows.column("_status"), "open")
    return pc.and_(is_open, pc.and_(pc.is_valid(rows.column("_replay_id")), pc.is_null(rows.column("_last_attempt_at"))))


COUNTED = ("_quality_flags", "_dlq_date", "_status")


def count_by(rows: pa.Table) -> list[dict[str, Any]]:
    """Count rows by day and rule: `date`, `rule`, and a number for each status; a letter counts under each of its rules."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for flags, day, status in zip(*(to_values(rows.column(name)) for name in COUNTED), strict=True):
        for rule in flags or ["none"]:
            states = counts.setdefault(("no Kafka time" if day is None else str(day), rule), {})
            states[status] = states.get(status, 0) + 1
    return [
        {"date": day, "rule": rule, **{state: states.get(state, 0) for state in ("open", "replayed", "discarded")}}
        for (day, rule), states in sorted(counts.items())
    ]


def _bounds(chosen: LetterFilter) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    if chosen.days:
        found["_dlq_date"] = chosen.days
    if chosen.partition is not None:
        found["_kafka_partition"] = (chosen.partition, chosen.partition)
    if chosen.offsets:
        found["_kafka_offset"] = chosen.offsets
    return found


def _expression(chosen: LetterFilter) -> pc.Expression | None:
    found = None
    for name, (first, last) in _bounds(chosen).items():
        part = (pc.field(name) >= first) & (pc.field(name) <= last)
        found = part if found is None else found & part
    return found


def _breaks_one(flags: pa.ChunkedArray, rules: Sequence[str]) -> pa.Array:
    column = flags.combine_chunks()
    parents = pc.list_parent_indices(column).to_numpy()
    hits = pc.is_in(pc.list_flatten(column), value_set=pa.array(rules, pa.string())).to_numpy(zero_copy_only=False)
    found = np.zeros(len(column), dtype=bool)
    found[parents[hits]] = True
    return pa.array(found)
