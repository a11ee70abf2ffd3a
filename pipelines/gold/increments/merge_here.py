"""Adds a few changes to usage by key in this process: Spark's MERGE takes seconds for what takes deltalake a part of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, Transaction, WriterProperties

from pipelines.gold.increments.position import Move, position_note
from pipelines.gold.schema import BY_KEY_KEYS, BY_KEY_MEASURES
from pipelines.lake.contract.facts import open_writable

_MANY_HOURS = 500
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def add(path: str, changed: pa.Table, move: Move) -> bool:
    """Add `changed` (BY_KEY_KEYS, BY_KEY_MEASURES) to the rows of its keys and move the position, in one commit.

    A key whose usage comes to nothing has no row. Returns False, with nothing written, where Spark has to do it: no rows, or keys
    that SQL cannot name, a table that deltalake cannot write, or a position that is not `move.expected` here. A rival that moves
    it meanwhile fails the commit.
    """
    table = open_writable(path) if _has_plain_keys(changed) else None
    if table is None or table.transaction_version(move.app_id) != move.expected:
        return False
    on = " AND ".join([_within(changed["hour"].unique().to_pylist()), *(f"t.{name} = s.{name}" for name in BY_KEY_KEYS)])
    (
        table.merge(
            changed,
            on,
            source_alias="s",
            target_alias="t",
            writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
            commit_properties=CommitProperties(
                custom_metadata={"userMetadata": json.dumps(position_note(move.looked_at))},
                app_transactions=[Transaction(move.app_id, move.to)],
            ),
        )
        .when_matched_delete(" AND ".join(f"t.{name} + s.{name} = 0" for name in BY_KEY_MEASURES))
        .when_matched_update({name: f"t.{name} + s.{name}" for name in BY_KEY_MEASURES})
        .when_not_matched_insert({name: f"s.{name}" for name in (*BY_KEY_KEYS, *BY_KEY_MEASURES)})
        .execute()
    )
    return True


def _has_plain_keys(changed: pa.Table) -> bool:
    """Whether there are rows, all of whole keys, and in years that a text of SQL can name."""
    if not changed.num_rows or any(changed[name].null_count for name in BY_KEY_KEYS):
        return False
    first, last = ((at - _EPOCH) // timedelta(microseconds=1) for at in (_FIRST, _LAST))
    hours = changed["hour"].cast(pa.int64())
    return bool(first <= pc.min(hours).as_py() and pc.max(hours).as_py() <= last)


def _within(hours: Sequence[datetime]) -> str:
    """With literal hours a merge opens the files that may hold them, not all."""
    if len(hours) > _MANY_HOURS:
        return f"t.hour >= {_literal(min(hours))} AND t.hour <= {_literal(max(hours))}"
    return f"t.hour IN ({', '.join(map(_literal, hours))})"


def _literal(hour: datetime) -> str:
    return f"'{hour.isoformat()}'::timestamp"
