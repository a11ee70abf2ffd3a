"""The ways back: rows of the archive into Bronze again, and the end of what was kept long enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pipelines.archive import records
from pipelines.archive.archiving import JOB
from pipelines.archive.content import COORDINATES, Longs, among, coordinates, figures, read
from pipelines.archive.hot import HotTable
from pipelines.archive.units import Archive, Unit
from pipelines.lake.errors import DataLossError, TransientError, UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.logging import Log
from pipelines.lake.settings import Settings

_LOG = Log(JOB)


@dataclass(frozen=True)
class RestorePlan:
    """Units of the days asked for, and how many of their rows Bronze has already."""

    units: tuple[Unit, ...]
    present: int

    @property
    def rows(self) -> int:
        """Rows in the archive."""
        return sum(unit.rows for unit in self.units)


def plan_restore(settings: Settings, first: date, last: date) -> RestorePlan:
    """Look at what the archive has of the days `first` to `last`; nothing is written.

    Raises UsageError where it has nothing of them.
    """
    place = Archive.of(settings)
    units = tuple(unit for unit in place.units() if first <= unit.day <= last)
    if not units:
        msg = f"The archive {place.root} has nothing of {first} to {last}; `lakehouse archive list` says which days it has."
        raise UsageError(msg)
    hot = HotTable.open(settings)
    rows = among(read(place.rows(*units), columns=COORDINATES), _held(hot, _days(units)), keep=True)
    return RestorePlan(units, sum(batch.num_rows for batch in rows))


def restore(settings: Settings, plan: RestorePlan, run: str) -> int:
    """Put the rows of `plan` that Bronze lacks back into it and return how many.

    Idempotent: a coordinate that Bronze has is left out. The commit is no news to streams, which have had these rows; a new
    checkpoint, a bounded replay and a rebuild read them. Raises DataLossError where the archive is damaged, TransientError
    where somebody else put rows of these days into Bronze meanwhile; then nothing is changed.
    """
    place = Archive.of(settings)
    with lease_of(settings, "archive", job=JOB, run=run).hold():
        for unit in plan.units:
            problem = place.problem(unit)
            if problem is not None:
                msg = f"The archive of {unit.day} is damaged: {problem}; nothing was restored, see playbooks/bronze-archive.md."
                raise DataLossError(msg)
        days = _days(plan.units)
        hot = HotTable.open(settings)
        held = _held(hot, days)
        names = hot.write(among(read(place.rows(*plan.units)), held, keep=False))
        if not names:
            return 0
        try:
            expected = figures(among(read(place.rows(*plan.units)), held, keep=False))
            if figures(read(hot.dataset(names))) != expected:
                msg = (
                    "What was read from the archive was not written to Bronze as it is; nothing was restored, look at the disk "
                    "(playbooks/bronze-archive.md)."
                )
                raise DataLossError(msg)
            with lease_of(settings, "bronze", job=JOB, run=run).hold():
                now = hot.newest()
                if len(_held(now, days)) != len(held):
                    msg = (
                        "Other rows of these days came to Bronze meanwhile; nothing was restored, run the command again "
                        "(playbooks/bronze-archive.md)."
                    )
                    raise TransientError(msg)
                now.put_back(names, {"job": JOB, "run": run, "restored": [str(day) for day in days]})
        except Exception:
            hot.discard(names)
            raise
    rows = sum(part.rows for part in expected)
    _LOG.info("archive restored", run=run, rows=rows, days=len(days))
    return rows


def due_units(settings: Settings, now: datetime) -> list[Unit]:
    """Units whose manifest says that they need not be kept any longer."""
    today = now.astimezone(UTC).date()
    return [unit for unit in Archive.of(settings).units() if unit.keep_until < today]


def expire(settings: Settings, units: Sequence[Unit], run: str, now: datetime, say: Callable[[str], None]) -> None:
    """Delete `units` from the archive. First it is recorded, so that a run that dies is completed by the next.

    Raises UsageError for a unit that has to be kept.
    """
    kept = [unit for unit in units if unit.keep_until >= now.astimezone(UTC).date()]
    if kept:
        msg = f"The archive of {kept[0].day} has to be kept until {kept[0].keep_until}; nothing was deleted."
        raise UsageError(msg)
    if not units:
        return
    place = Archive.of(settings)
    with lease_of(settings, "archive", job=JOB, run=run).hold():
        records.record(settings, place, place.units(_days(units)))
        records.mark_expired(settings, units, now)
        for unit in units:
            say(f"{unit.day}: {unit.rows:,} rows, run {unit.run}")
            place.remove(unit.folder)
    _LOG.info("archive expired", run=run, units=len(units), rows=sum(unit.rows for unit in units))


def _days(units: Sequence[Unit]) -> list[date]:
    return sorted({unit.day for unit in units})


def _held(hot: HotTable, days: Sequence[date]) -> Longs:
    return coordinates(read(hot.rows, days, COORDINATES))
