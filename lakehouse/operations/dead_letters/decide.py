"""Decisions about dead letters: which ones a replay takes, and which ones are discarded; no JVM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field
from deltalake.exceptions import CommitFailedError
from deltalake.schema import PrimitiveType

from lakehouse.operations.dead_letters.filters import LetterFilter
from lakehouse.operations.dead_letters.letters import LATER_COLUMNS, Longs, coordinates_of, is_claimed, read_letters
from pipelines.lake.errors import TransientError, UsageError

_COLUMNS = (
    "_kafka_partition",
    "_kafka_offset",
    "_quality_flags",
    "_dlq_date",
    "_status",
    "_attempts",
    "_replay_id",
    "_last_attempt_at",
)
_TRIES = 5


@dataclass(frozen=True)
class Selection:
    """Letters that a replay would try; `exhausted` ones are left out, `claimed` ones belong to replays that died."""

    rows: pa.Table
    exhausted: int
    claimed: int

    @property
    def coordinates(self) -> Longs:
        """Their places, packed."""
        return coordinates_of(self.rows)


def select_for_replay(table: DeltaTable, chosen: LetterFilter, *, max_attempts: int, force: bool) -> Selection:
    """Choose the open letters among `chosen`, less those tried `max_attempts` times unless `force`.

    Raises UsageError where discarded letters were asked for: by status, or because all that match are.
    """
    rows = _open_rows(table, chosen, "replayed", refused="discarded")
    waiting = is_claimed(rows)
    claimed = int(pc.sum(waiting).as_py() or 0)
    rows = rows.filter(pc.invert(waiting))
    tired = pc.greater_equal(pc.fill_null(rows.column("_attempts"), 0), max_attempts)
    exhausted = 0 if force else int(pc.sum(tired).as_py() or 0)
    return Selection(rows if force else rows.filter(pc.invert(tired)), exhausted, claimed)


def select_for_discard(table: DeltaTable, chosen: LetterFilter) -> pa.Table:
    """Choose the open letters among `chosen`.

    Raises UsageError where replayed letters were asked for (see `select_for_replay`), or where a replay that has not
    finished holds some of them.
    """
    rows = _open_rows(table, chosen, "discarded", refused="replayed")
    held = int(pc.sum(is_claimed(rows)).as_py() or 0)
    if held:
        msg = (
            f"{held} of the letters belong to a replay that has not finished, expected none; "
            "run `lakehouse dlq replay` first, which completes it."
        )
        raise UsageError(msg)
    return rows


def discard(table: DeltaTable, chosen: LetterFilter, reason: str) -> int:
    """Close the open letters among `chosen` and return how many; a second call finds none.

    Raises TransientError where other writers' commits came first each time.
    """
    _ensure_columns(table)
    predicate = replace(chosen, status="open").predicate()
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    # deltalake's `new_values` cuts a text at its first quote.
    text = reason.replace("'", "''")
    for _ in range(_TRIES):
        try:
            done = table.update(
                updates={"_status": "'discarded'", "_reason": f"'{text}'", "_closed_at": f"TIMESTAMP '{now}'"},
                # A replay that began meanwhile keeps what it has claimed.
                predicate=f"({predicate}) AND NOT (_replay_id IS NOT NULL AND _last_attempt_at IS NULL)",
                commit_properties=CommitProperties(custom_metadata={"lakehouse": "dlq discard"}),
            )
        except CommitFailedError:
            table.update_incremental()
        else:
            return int(done["num_updated_rows"])
    msg = (
        f"Other writers changed the dead-letter table {_TRIES} times in a row; nothing was discarded, run the command again "
        "(playbooks/dead-letters.md)."
    )
    raise TransientError(msg)


def _open_rows(table: DeltaTable, chosen: LetterFilter, verb: str, *, refused: str) -> pa.Table:
    if chosen.status not in (None, "open"):
        msg = f"Letters with the status {chosen.status} were asked for, but only open ones can be {verb}; leave --status out."
        raise UsageError(msg)
    rows = read_letters(table, replace(chosen, status=None), _COLUMNS)
    found = rows.filter(pc.equal(rows.column("_status"), "open"))
    closed = int(pc.sum(pc.equal(rows.column("_status"), refused)).as_py() or 0)
    # Beside letters that are already what they are to become, the command was simply given twice.
    if closed and closed == rows.num_rows:
        msg = f"The letters that match ({closed}) are {refused} and cannot be {verb}; `lakehouse dlq list` shows them."
        raise UsageError(msg)
    return found


def _ensure_columns(table: DeltaTable) -> None:
    present = {field.name for field in table.schema().fields}
    missing = [Field(name, PrimitiveType(kind), nullable=True) for name, kind in LATER_COLUMNS.items() if name not in present]
    if missing:
        table.alter.add_columns(missing)
        table.update_incremental()
