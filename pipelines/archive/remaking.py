"""A manifest made anew: what a recorded copy holds, read from its files, where the manifest is lost and no backup has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from pipelines.archive import records
from pipelines.archive.archiving import JOB
from pipelines.archive.content import COORDINATES, figures, islands, read
from pipelines.archive.storage import dataset, sha256
from pipelines.archive.units import Archive, ArchiveFile, Unit, folder_of
from pipelines.lake.errors import DataLossError, LakehouseError, UnreadableError, UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.logging import Log
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart

_LOG = Log(JOB)


def remake_manifest(settings: Settings, day: date, run: str) -> Unit:
    """Write the manifest of the recorded copy of `day` by `run` from its files, and return the unit.

    Guarantee: its files hold each offset that `ops.bronze_archive` has of it, once, and no other. The bytes are taken as they
    are found: that none has changed, only the lost manifest could say. Raises UsageError where there is no such copy without
    a manifest, DataLossError where its files cannot be read or hold other offsets; then nothing is written.
    """
    place, folder = Archive.of(settings), folder_of(day, run)
    with lease_of(settings, "archive", job=JOB, run=run).hold():
        recorded = [row for row in records.rows(settings) if (row["day"], row["run"]) == (day, run) and not row["expired_at"]]
        if not recorded or folder not in place.survey().leftovers:
            msg = (
                f"The archive {place.root} has no copy of {day} by run `{run[:80]}` that is on record and lacks its manifest; "
                "`lakehouse archive verify` names those that do."
            )
            raise UsageError(msg)
        try:
            with told_apart(place.path(folder)):
                unit = _unit(place, day, run, recorded, settings.retention.archive_days)
                held = islands(read(place.rows(unit), columns=COORDINATES))
        except UnreadableError:
            raise
        except (pa.ArrowException, OSError, LakehouseError) as error:
            msg = (
                f"The files in {place.path(folder)} cannot be read ({type(error).__name__}); no manifest was written: put the "
                "folder back from a backup of the archive (playbooks/bronze-archive.md)."
            )
            raise DataLossError(msg) from None
        offsets = sum(last - first + 1 for *_, first, last in held)
        if offsets != unit.rows or held != sorted(
            (row["topic"], row["partition"], row["first_offset"], row["last_offset"]) for row in recorded
        ):
            msg = (
                f"The files in {place.path(folder)} hold other offsets than ops.bronze_archive has of them; no manifest was "
                "written: put the folder back from a backup of the archive (playbooks/bronze-archive.md)."
            )
            raise DataLossError(msg)
        place.write(unit)
    _LOG.info("manifest made anew", run=run, day=str(day), rows=unit.rows)
    return unit


def _unit(place: Archive, day: date, run: str, recorded: Sequence[Mapping[str, Any]], keep_days: int) -> Unit:
    folder = place.path(folder_of(day, run))
    names = place.parquet_files(folder_of(day, run))
    rows = dataset(place.system, [f"{folder}/{name}" for name in names])
    hashes = ((name, *sha256(place.system, f"{folder}/{name}")) for name in names)
    return Unit(
        day=day,
        run=run,
        bronze_version=None,
        created_at=min(row["archived_at"] for row in recorded),
        keep_until=day + timedelta(days=keep_days),
        files=tuple(ArchiveFile(name, size, digest) for name, digest, size in hashes),
        parts=figures(read(rows)),
        schema=tuple((column.name, str(column.type)) for column in rows.schema),
    )
