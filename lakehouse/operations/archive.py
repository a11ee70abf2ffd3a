"""Reads the archive back and says what differs from its manifests and records."""

from __future__ import annotations

from datetime import date
from typing import Any

from pipelines.archive import records
from pipelines.archive.units import Archive, Unit
from pipelines.lake.settings import Settings


def read_back(settings: Settings, first: date | None, last: date | None) -> tuple[list[Unit], list[dict[str, Any]]]:
    """The units of the days `first` to `last` (None: no bound), and what is wrong with each: day, run, problem."""
    archive = Archive.of(settings)
    units = [unit for unit in archive.units() if (first or unit.day) <= unit.day <= (last or unit.day)]
    problems = [{"day": unit.day, "run": unit.run, "problem": found} for unit in units if (found := archive.problem(unit))]
    return units, problems + _unaccounted(settings, units, first, last)


def _unaccounted(settings: Settings, units: list[Unit], first: date | None, last: date | None) -> list[dict[str, Any]]:
    """Units that `ops.bronze_archive` knows and the archive has lost."""
    there = {(unit.day, unit.run) for unit in units}
    known = {(row["day"], row["run"]) for row in records.rows(settings) if row["expired_at"] is None}
    wanted = {(day, run) for day, run in known if (first or day) <= day <= (last or day)}
    problem = "is recorded in ops.bronze_archive, but the archive has no manifest of it"
    return [{"day": day, "run": run, "problem": problem} for day, run in sorted(wanted - there)]
