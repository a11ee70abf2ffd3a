"""What Silver's circuit breaker did, kept in `ops.circuit_breaker`: read and written without a JVM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.delta_log.plain_read import files_dataset
from pipelines.lake.errors import LakehouseError
from pipelines.lake.logging import Log
from pipelines.lake.places import make_folder
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import CIRCUIT_BREAKER, Column, TableDef
from pipelines.silver.breaker.breaker import NOTHING, Breaker, Ends, State, Tally

_LOG = Log("breaker")
UNREADABLE = (LakehouseError, DeltaError, OSError, pa.ArrowException)
"""What may keep the table from being read or written: its log, its store, a file that is cut."""
_START = datetime(1970, 1, 1, tzinfo=UTC)

TABLE = TableDef(
    name=CIRCUIT_BREAKER,
    comment="Silver's circuit breaker: one row for each change of its state. Rows are only added.",
    columns=(
        Column("at", "timestamp", "When the state changed.", nullable=False),
        Column("from_state", "string", "closed, open or half_open.", nullable=False),
        Column("to_state", "string", "closed, open or half_open.", nullable=False),
        Column("share", "double", "Dead letters among `records`."),
        Column("records", "bigint", "Records that were judged: the window and the batch, or a probe."),
        Column("dead_letters", "bigint", "How many of them are dead letters."),
        Column("generation", "string", "Silver's checkpoint; NULL for an operator's reset."),
        Column("batch_id", "bigint", "The batch that was judged; NULL for an operator's reset."),
        Column("offsets", "string", 'JSON: `{"<partition>": [first, end]}` of that batch, the end exclusive.'),
        Column("accepted", "string", 'JSON: `{"<partition>": end}`; dead letters below these offsets do not count any more.'),
        Column("reason", "string", "Why, in words; of a reset the operator's."),
    ),
    keys=("at",),
    writer="silver, and `lakehouse breaker reset`",
)
SCHEMA = arrow_schema(TABLE)


@dataclass(frozen=True)
class Transition:
    """One change of state."""

    at: datetime
    from_state: State
    to_state: State
    tally: Tally
    reason: str
    generation: str | None = None
    batch_id: int | None = None
    offsets: Mapping[str, list[int]] = field(default_factory=dict)
    accepted: Ends = field(default_factory=dict)

    def breaker(self) -> Breaker:
        """The breaker that this change left behind."""
        return Breaker(self.to_state, self.at, self.accepted)

    def held_ends(self) -> dict[int, int]:
        """End (exclusive) of the judged batch in each partition."""
        return {int(partition): end for partition, (_, end) in self.offsets.items()}


class BreakerStore:
    """Reads and appends transitions. The commit is conditional, so an operator's reset and the stream may write at once."""

    def __init__(self, settings: Settings) -> None:
        self.path = CIRCUIT_BREAKER.path(settings)

    def last(self) -> Transition | None:
        """The newest transition, None where there never was one."""
        newest = self.newest(1)
        return newest[0] if newest else None

    def newest(self, count: int) -> list[Transition]:
        """The last `count` transitions, the newest first."""
        table = open_table(self.path)
        if table is None:
            return []
        with told_apart(self.path):
            found = files_dataset(table, _newest_files(table, count), SCHEMA).to_table()
        rows = found.sort_by([("at", "descending")]).slice(0, count).to_pylist()
        return [_transition(row) for row in rows]

    def peek(self) -> Transition | None:
        """The newest transition; None also where it cannot be read."""
        newest = self.peek_newest(1)
        return newest[0] if newest else None

    def peek_newest(self, count: int) -> list[Transition]:
        """As `newest`; nothing also where it cannot be read: bookkeeping never stops the data."""
        try:
            return self.newest(count)
        except UNREADABLE as error:
            _LOG.warning("state cannot be read; taken for closed", error=type(error).__name__)
            return []

    def record(self, transition: Transition) -> bool:
        """Add a transition and log it; False, with a warning, where it cannot be written."""
        try:
            self.append(transition)
        except UNREADABLE as error:
            _LOG.warning("state cannot be recorded; batches pass unguarded", error=type(error).__name__, to=transition.to_state)
            return False
        log = _LOG.warning if transition.to_state == "open" else _LOG.info
        log(
            "state changed",
            state=transition.to_state,
            batch=transition.batch_id,
            records=transition.tally.records,
            dead_letters=transition.tally.dead_letters,
            reason=transition.reason,
        )
        return True

    def append(self, transition: Transition) -> None:
        """Add a transition."""
        row = {
            "at": transition.at,
            "from_state": transition.from_state,
            "to_state": transition.to_state,
            "share": transition.tally.share,
            "records": transition.tally.records,
            "dead_letters": transition.tally.dead_letters,
            "generation": transition.generation,
            "batch_id": transition.batch_id,
            "offsets": json.dumps(transition.offsets),
            "accepted": json.dumps({str(partition): end for partition, end in sorted(transition.accepted.items())}),
            "reason": transition.reason,
        }
        make_folder(self.path)
        write_deltalake(self.path, pa.Table.from_pylist([row], SCHEMA), mode="append")


def start() -> Breaker:
    """The breaker of a lake that has no history of it."""
    return Breaker("closed", _START)


def _newest_files(table: DeltaTable, count: int) -> list[str]:
    """Files with the last `count` rows: a breaker that is open for a day leaves thousands of files of one row."""
    adds = pa.table(table.get_add_actions(flatten=True))
    if "max.at" not in adds.column_names or adds["max.at"].null_count:
        return [str(path) for path in adds["path"].to_pylist()]
    return [str(path) for path in adds.sort_by([("max.at", "descending")])["path"].to_pylist()[:count]]


def _transition(row: Mapping[str, Any]) -> Transition:
    return Transition(
        at=row["at"],
        from_state=row["from_state"],
        to_state=row["to_state"],
        tally=Tally(row["records"] or 0, row["dead_letters"] or 0) if row["records"] else NOTHING,
        reason=row["reason"] or "",
        generation=row["generation"],
        batch_id=row["batch_id"],
        offsets=json.loads(row["offsets"] or "{}"),
        accepted={int(partition): end for partition, end in json.loads(row["accepted"] or "{}").items()},
    )
