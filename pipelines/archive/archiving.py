"""Moves old days of Bronze to the archive: copy, verify, record, and only then remove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa

from pipelines.archive import records
from pipelines.archive.content import COORDINATES, database, read
from pipelines.archive.copying import CopyRun
from pipelines.archive.hot import HotTable
from pipelines.archive.units import Archive, Survey, key_of
from pipelines.lake import failpoints
from pipelines.lake.errors import DataLossError, UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.logging import Log
from pipelines.lake.settings import Settings

JOB = "archive_bronze"
_LOG = Log(JOB)
_UNREAD = """
    SELECT count(*) FROM rows r ASOF LEFT JOIN covered c ON r._kafka_partition = c.p AND r._kafka_offset >= c.first
    WHERE c.stop IS NULL OR r._kafka_offset >= c.stop"""


@dataclass(frozen=True)
class ArchivePlan:
    """Days of Bronze before `before`, at the version of `hot`: rows, and of these how many Silver has not read.

    `leftovers`: folders of runs that died, which are to be removed. `lost`: folders of recorded copies whose manifest is gone.
    `foreign`: files in the archive that no run has made; they stay.
    """

    before: date
    hot: HotTable
    rows: Mapping[date, int]
    unread: Mapping[date, int]
    leftovers: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def ready(self) -> dict[date, int]:
        """Days that can be archived, with their rows."""
        return {day: rows for day, rows in self.rows.items() if not self.unread[day]}


@dataclass(frozen=True)
class Archived:
    """What a run did: rows copied and rows removed by day, and days that changed meanwhile, which the next run takes."""

    run: str
    copied: Mapping[date, int] = field(default_factory=dict)
    removed: Mapping[date, int] = field(default_factory=dict)
    changed: tuple[date, ...] = ()


def newest_bound(settings: Settings, now: datetime) -> date:
    """First day that stays in Bronze."""
    return now.astimezone(UTC).date() - timedelta(days=settings.retention.bronze_days)


def plan_archive(settings: Settings, before: date | None, now: datetime) -> ArchivePlan:
    """Look at what is old enough; nothing is written.

    Raises UsageError where `before` would take days that are to stay, or there is no Bronze table.
    """
    bound = newest_bound(settings, now)
    if before is not None and before > bound:
        msg = (
            f"--before {before} would archive days that are to stay in Bronze: retention.bronze_days is "
            f"{settings.retention.bronze_days}, so give {bound} or an earlier day."
        )
        raise UsageError(msg)
    hot = HotTable.open(settings)
    rows = hot.counts(before or bound)
    covered = Ledger(settings).covered("silver")
    unread = {day: _unread(hot, day, covered) for day in rows}
    survey = Archive.of(settings).survey()
    return ArchivePlan(before or bound, hot, rows, unread, *_leftovers(settings, survey), survey.foreign)


def archive(settings: Settings, plan: ArchivePlan, run: str, now: datetime, say: Callable[[str], None]) -> Archived:
    """Archive the days of `plan` that Silver has read.

    Guarantee: a row leaves Bronze only when files in the archive, read back, hold it with all its bytes. Each step may run
    again: a copy without a manifest is thrown away unless it is on record, one with a manifest is not made twice, and a row may
    stand in both. One run at a time. Raises DataLossError where a copy differs from Bronze, or an older one is damaged: that day
    stays in Bronze. So it does at the end where a copy on record has no manifest: it may be the only one, and is never removed.
    """
    place = Archive.of(settings)
    copies = CopyRun(settings, place, plan.hot, run, now)
    copied: dict[date, int] = {}
    failed: list[DataLossError] = []
    with lease_of(settings, "archive", job=JOB, run=run).hold():
        records.ensure(settings)
        for folder in _leftovers(settings, place.survey())[0]:
            place.remove(folder)
        for day, rows in plan.ready.items():
            say(f"{day}: {rows:,} rows")
            try:
                copied[day] = _secure(copies, day)
            except DataLossError as error:
                # The other days are not held up by this one's damage.
                failed.append(error)
        removed = _remove(settings, plan.hot, {day: plan.rows[day] for day in copied}, run)
        # Last: a day that Bronze has still was copied anew, and its old copy is no longer on record.
        lost = _leftovers(settings, place.survey())[1]
    changed = tuple(sorted(copied.keys() - removed.keys()))
    _LOG.info("archive run done", run=run, rows=sum(removed.values()), days=len(removed), changed=len(changed))
    if failed:
        raise failed[0]
    if lost:
        msg = (
            f"{len(lost)} copies on record in ops.bronze_archive have no manifest (first {place.path(lost[0])}); they stay as "
            "they are: put manifest.json back from a backup of the archive, or make it anew (playbooks/bronze-archive.md)."
        )
        raise DataLossError(msg)
    return Archived(run, copied, removed, changed)


def _leftovers(settings: Settings, survey: Survey) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folders without a manifest: those of runs that died, whose rows are in Bronze still, and those of recorded copies.

    A copy is on record before its rows leave Bronze, so one that is not has lost nothing.
    """
    known = {(row["day"], row["run"]) for row in records.rows(settings) if row["expired_at"] is None}
    lost = tuple(folder for folder in survey.leftovers if key_of(folder) in known)
    return tuple(folder for folder in survey.leftovers if folder not in lost), lost


def _secure(copies: CopyRun, day: date) -> int:
    """Have a verified copy of each row of `day`, and a record of it; return how many rows were copied for it."""
    units = copies.place.units([day])
    # First: what a damaged file seems to lack would be copied a second time.
    copies.require_sound(units)
    made = copies.copy(day, units)
    failpoints.reach("archive.after_manifest")
    if units:
        copies.require_copies(day, units, made)
    records.record(copies.settings, copies.place, [*units, *([made] if made else [])])
    failpoints.reach("archive.after_record")
    return made.rows if made else 0


def _unread(hot: HotTable, day: date, covered: Mapping[int, list[tuple[int, int]]]) -> int:
    """How many rows of `day` no batch of Silver has read."""
    spans = [(part, first, stop) for part, found in covered.items() for first, stop in found]
    with database() as db:
        db.execute("CREATE TABLE covered (p INTEGER, first BIGINT, stop BIGINT)")
        if spans:
            columns = zip(*spans, strict=True)
            _insert(db, pa.table(dict(zip(("p", "first", "stop"), map(pa.array, columns), strict=True))))
        db.register("rows", read(hot.rows, [day], COORDINATES))
        return int(db.execute(_UNREAD).fetchall()[0][0])


def _insert(db: duckdb.DuckDBPyConnection, spans: pa.Table) -> None:
    db.register("spans", spans)
    db.execute("INSERT INTO covered SELECT * FROM spans").fetchall()


def _remove(settings: Settings, then: HotTable, counted: Mapping[date, int], run: str) -> dict[date, int]:
    if not counted:
        return {}
    # Bronze's stream waits for this long: for the commit, and for the files that hold younger days too.
    with lease_of(settings, "bronze", job=JOB, run=run).hold():
        now = then.newest()
        removed = now.take_out(then, counted, {"job": JOB, "run": run, "days": [str(day) for day in counted]})
        failpoints.reach("archive.after_delete")
        if removed:
            # Files that only versions of more than a week ago need: until then what was removed can be read there.
            now.newest().table.vacuum(dry_run=False)
    return removed
