"""What a rollback would do, read without a JVM: rows, files, bills that it would open, batches that it takes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
from deltalake import DeltaTable

from pipelines.archive.guard import refuse_ranges
from pipelines.lake.delta_log.commit import Commit
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import DamagedError, LakehouseError, UsageError
from pipelines.lake.ledger.ledger import Ledger, LedgerRow
from pipelines.lake.ledger.ranges import Ranges, covered_by, subtract
from pipelines.lake.ledger.voids import EVENTS, LETTERS, standing
from pipelines.lake.places import place_of
from pipelines.lake.settings import Settings
from pipelines.lake.storage.arrow_storage import table_storage
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import ADJUSTMENTS, ALL_TABLES, BRONZE, DLQ, GOLD_DAILY, REVERSIBLE, SILVER, TableName

_KINDS = {SILVER: EVENTS, DLQ: LETTERS}


@dataclass(frozen=True)
class RollbackPlan:
    """A rollback of `table` from `version` to `to`; row counts are None where the log has no statistics.

    `done_at`: version of the RESTORE where an earlier run has got that far; `version` is then the one before it.
    `undone_since`: when the first commit was made that is taken back.

    For Silver and the dead letters: `batches` of the ledger that are taken back (none where an earlier run has done so), and
    `bronze_version`, from which a new generation has to read.
    """

    table: TableName
    path: str
    version: int
    to: int
    committed_at: datetime
    undone_since: datetime
    rows: int | None
    rows_then: int | None
    done_at: int | None = None
    commits: Sequence[str] = ()
    batches: Sequence[LedgerRow] = field(default=(), repr=False)
    bronze_version: int | None = None

    @property
    def generations(self) -> list[str]:
        """Generations of checkpoints whose batches are taken back."""
        return sorted({row.generation for row in self.batches})


def plan_rollback(settings: Settings, name: str, to: int) -> RollbackPlan:
    """Look at everything that a rollback depends on; nothing is written.

    Raises UsageError with one sentence: a table that is never rolled back, a version that is not there or whose files are
    gone, a bill that would be opened again, dead letters whose records are in Bronze's archive alone.
    """
    table = _reversible(name)
    path = table.path(settings)
    now = _open(table, path)
    if not 0 <= to < now.version():
        msg = f"{table} is at version {now.version()}, expected --to from 0 to {now.version() - 1}; correct it."
        raise UsageError(msg)
    then = _open(table, path, to)
    _require_files(table, now, then)
    if table == GOLD_DAILY:
        _refuse_open_bills(now, then)
    history = list(newest_commits(place_of(now), now.version(), after=to - 1))[::-1]
    if not history or history[0].version != to:
        first = history[0].version if history else now.version()
        msg = f"The log of {table} has no commit of version {to} any more; choose a version from {first} on."
        raise UsageError(msg)
    done_at, version = None, now.version()
    before = history[-1].note("rollback") if history[-1].operation == "RESTORE" else {}
    if before.get("to") == to and isinstance(before.get("from"), int):
        done_at, version = now.version(), before["from"]
    commits = [f"{commit.version} {commit.operation or '?'}" for commit in history[1:]]
    undone = now if done_at is None else _open(table, path, version)
    plan = RollbackPlan(
        table=table,
        path=path,
        version=version,
        to=to,
        committed_at=_time(history[0]),
        undone_since=_time(history[1]),
        rows=_rows(undone),
        rows_then=_rows(then),
        done_at=done_at,
        commits=commits,
    )
    if table not in _KINDS:
        return plan
    _refuse_half_a_batch(settings, plan, history[0].operation)
    return _with_batches(settings, plan)


def metadata(plan: RollbackPlan, reason: str) -> dict[str, Any]:
    """What the RESTORE commit says of itself (`userMetadata`): whoever comes after a crash reads it there."""
    return {"rollback": {"from": plan.version, "to": plan.to, "reason": reason}}


def _reversible(name: str) -> TableName:
    table = next((known for known in ALL_TABLES if str(known) == name), None)
    if table in REVERSIBLE:
        return table
    choices = ", ".join(str(known) for known in REVERSIBLE)
    reasons = {
        None: "is not a table of the lake",
        BRONZE: "is never rolled back: it is the append-only truth that everything else is made of",
        ADJUSTMENTS: "is never rolled back: issued adjustments stay, and the next run of the daily batch books what they lack",
    }
    reason = reasons.get(table, "is never rolled back: it is the record of what happened")
    msg = f"`{name[:80]}` {reason}; give one of {choices}."
    raise UsageError(msg)


def _open(table: TableName, path: str, version: int | None = None) -> DeltaTable:
    try:
        found = open_table(path, version)
    except DamagedError as error:
        at = "" if version is None else f" of version {version}"
        msg = f"The log{at} of {table} cannot be read: {error} Or choose a later version."
        raise (LakehouseError if version is None else UsageError)(msg) from None
    if found is None:
        msg = f"There is no Delta table {table} at {path}; correct `lake.root`."
        raise UsageError(msg)
    return found


def _require_files(table: TableName, now: DeltaTable, then: DeltaTable) -> None:
    names = [set(pa.table(one.get_add_actions()).column("path").to_pylist()) for one in (now, then)]
    storage = table_storage(then)
    needed = sorted(names[1] - names[0])
    with told_apart(place_of(now)):
        gone = sum(info.type != pa_fs.FileType.File for info in (storage.get_file_info(needed) if needed else []))
    if gone:
        msg = (
            f"{gone} of the {len(names[1])} files of version {then.version()} of {table} are gone (VACUUM removes them), so it "
            "cannot be restored; choose a later version, or rebuild the table with `lakehouse rebuild`."
        )
        raise UsageError(msg)


def _refuse_open_bills(now: DeltaTable, then: DeltaTable) -> None:
    opened = sorted(closed_days(now) - closed_days(then))
    if opened:
        msg = (
            f"Version {then.version()} of {GOLD_DAILY} is from before {len(opened)} days were closed (first {opened[0]}), and an "
            "issued bill is never opened again; choose a later version: what is wrong in it is mended by adjustments."
        )
        raise UsageError(msg)


def closed_days(daily: DeltaTable) -> set[date]:
    """Days of the daily Gold table that are final."""
    final = rows_dataset(daily).to_table(columns=["day"], filter=pc.field("billing_status") == "final")
    return set(final.column("day").unique().to_pylist())


def _rows(table: DeltaTable) -> int | None:
    adds = pa.table(table.get_add_actions(flatten=True))
    counts = adds.column("num_records").to_pylist() if "num_records" in adds.column_names else []
    return None if len(counts) != adds.num_rows or None in counts else sum(counts)


def _time(commit: Commit) -> datetime:
    """When it was committed; of a commit that does not say, the earliest moment: more is looked at then, not less."""
    return commit.at or datetime.fromtimestamp(0, UTC)


def _refuse_half_a_batch(settings: Settings, plan: RollbackPlan, operation: str) -> None:
    """Replacements of a batch are a MERGE before its append: with one and without the other no count is right."""
    ends = {row.versions.get(str(plan.table)) for row in Ledger(settings).batches("silver")}
    if plan.table == SILVER and operation == "MERGE" and plan.to not in ends:
        msg = f"Version {plan.to} of {plan.table} is in the middle of a batch; choose {plan.to - 1} or {plan.to + 1}."
        raise UsageError(msg)


def _with_batches(settings: Settings, plan: RollbackPlan) -> RollbackPlan:
    """Find the batches that are taken back: those that wrote a later version, and those that came after the first of it."""
    ledger, kind = Ledger(settings), _KINDS[plan.table]
    known = ledger.batches("silver")

    def is_undone(row: LedgerRow) -> bool:
        wrote = row.versions.get(str(plan.table))
        # A batch that wrote nothing was decided by what the table held then.
        return bool(wrote > plan.to if wrote is not None else kind == EVENTS and row.committed_at > plan.undone_since)

    # A row that an earlier run has voided is undone all the same: that run may have died before its records were read again.
    undone = [row for row in known if not row.is_void and is_undone(row)]
    ids = {id(row) for row in undone}
    batches = [row for row in standing(known, kind) if id(row) in ids]
    if kind == LETTERS:
        kept, missing = covered_by(standing(known)), covered_by(undone)
        # Silver's stream would not miss them: what they are in Silver is not taken back.
        refuse_ranges(settings, missing, "would have to be read again")
    else:
        kept = covered_by(row for row in standing(known) if id(row) not in ids)
        missing = subtract(covered_by(row for row in known if not row.is_void), kept)
    return replace(plan, batches=batches, bronze_version=bronze_start(ledger.batches("bronze"), missing, kept))


def bronze_start(bronze: Sequence[LedgerRow], missing: Ranges, kept: Ranges) -> int:
    """First version of Bronze that holds a record of `missing`, or one beyond the end of `kept`; 0 where that is unknown."""
    ends = {partition: ranges[-1][1] for partition, ranges in kept.items()}
    if subtract(missing, covered_by(bronze)):
        return 0
    first, last = None, 0
    for row in bronze:
        version = row.versions.get(str(BRONZE), 0)
        last = max(last, version)
        for partition, (start, end) in row.spans.items():
            wanted = missing.get(partition, [])
            if end > max(start, ends.get(partition, 0)) or any(low < end and start < high for low, high in wanted):
                first = version if first is None else min(first, version)
    return last if first is None else first
