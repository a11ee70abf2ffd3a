"""One run's copies: a day's rows into files of the archive, compared with Bronze before they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import pyarrow as pa

from pipelines.archive.content import COORDINATES, among, coordinates, figures, read
from pipelines.archive.hot import HotTable
from pipelines.archive.storage import sha256, write_files
from pipelines.archive.units import Archive, ArchiveFile, Unit
from pipelines.lake import failpoints
from pipelines.lake.errors import DataLossError
from pipelines.lake.settings import Settings

_LEVEL = 6
"""Of zstd. Written once and read rarely: smaller than what the jobs write."""


@dataclass(frozen=True)
class CopyRun:
    """Copies from Bronze at the version of `hot` to `place`."""

    settings: Settings
    place: Archive
    hot: HotTable
    run: str
    now: datetime

    def copy(self, day: date, units: Sequence[Unit]) -> Unit | None:
        """Copy the rows of `day` that none of `units` has, compare the copy with Bronze, then write its manifest.

        None where there are no such rows. Raises DataLossError where the copy differs; it is thrown away by the next run.
        """
        known = coordinates(read(self.place.rows(*units), columns=COORDINATES)) if units else None

        def rows() -> pa.RecordBatchReader:
            found = read(self.hot.rows, [day])
            return found if known is None else among(found, known, keep=False)

        expected = figures(rows())
        if not expected:
            return None
        until = day + timedelta(days=self.settings.retention.archive_days)
        schema = tuple((column.name, str(column.type)) for column in self.hot.rows.schema)
        unit = Unit(day, self.run, self.hot.version, self.now, until, (), expected, schema)
        folder = self.place.path(unit.folder)
        self.place.system.create_dir(folder, recursive=True)
        names = write_files(self.place.system, folder, rows(), level=_LEVEL)
        failpoints.reach("archive.after_copy")
        hashes = ((name, *sha256(self.place.system, f"{folder}/{name}")) for name in names)
        unit = replace(unit, files=tuple(ArchiveFile(name, size, digest) for name, digest, size in hashes))
        problem = self.place.problem(unit)
        if problem is not None:
            msg = (
                f"The copy of {day} differs from Bronze: {problem}; its rows stay in Bronze, look at the disk and run again "
                "(playbooks/bronze-archive.md)."
            )
            raise DataLossError(msg)
        self.place.write(unit)
        return unit

    def require_sound(self, units: Sequence[Unit]) -> None:
        """Demand that copies of earlier runs, read back, are what their manifests say; raises DataLossError otherwise."""
        for unit in units:
            problem = self.place.problem(unit)
            if problem is not None:
                msg = (
                    f"The archive of {unit.day} is damaged: {problem}; what Bronze has of that day stays there. Put the file "
                    f"back from a backup, or move the folder {self.place.path(unit.folder)} outside the archive and run again "
                    "(playbooks/bronze-archive.md)."
                )
                raise DataLossError(msg)

    def require_copies(self, day: date, units: Sequence[Unit], made: Unit | None) -> None:
        """Demand that `units` of earlier runs and the one `made` hold each row of the day as Bronze has it.

        Raises DataLossError where a row differs.
        """
        held = coordinates(read(self.hot.rows, [day], COORDINATES))
        every = [*units, *([made] if made else [])]
        if figures(among(read(self.place.rows(*every)), held, keep=True)) != figures(read(self.hot.rows, [day])):
            msg = (
                f"The archive holds rows of {day} with other bytes than Bronze; they stay there: see playbooks/bronze-archive.md."
            )
            raise DataLossError(msg)
