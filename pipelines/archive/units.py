"""Units of the archive: a day's rows that one run copied, in a folder of their own, with a manifest that says what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pa_fs

from pipelines.archive.content import Figures, Part, figures, read
from pipelines.archive.storage import dataset, keep, open_folder, sha256
from pipelines.common.errors import LakehouseError
from pipelines.common.settings import Settings
from pipelines.common.tables import BRONZE

MANIFEST = "manifest.json"
_FORMAT = 1
_DAY, _RUN = "_event_date=", "run-"
_READERS = 8


@dataclass(frozen=True)
class ArchiveFile:
    """A Parquet file of a unit; `bytes` is its size."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Unit:
    """Rows of `day` that the run `run` copied from `bronze_version`; `schema` are column names and Arrow types."""

    day: date
    run: str
    bronze_version: int
    created_at: datetime
    keep_until: date
    files: tuple[ArchiveFile, ...]
    parts: Figures
    schema: tuple[tuple[str, str], ...] = field(repr=False)

    @property
    def rows(self) -> int:
        """Records of the unit."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.bytes for file in self.files)

    @property
    def folder(self) -> str:
        """Its folder, below the archive of Bronze."""
        return f"{_DAY}{self.day}/{_RUN}{self.run}"

    def manifest(self) -> str:
        """Text of the manifest."""
        tree = {"format": _FORMAT, "table": str(BRONZE), "rows": self.rows, **asdict(self)}
        return json.dumps(tree, indent=1, default=str)


@dataclass(frozen=True)
class Archive:
    """The archive of Bronze at one place."""

    system: pa_fs.FileSystem
    root: str

    @staticmethod
    def of(settings: Settings) -> Archive:
        """The archive that the settings name."""
        base = settings.retention.archive or f"{settings.lake.root.rstrip('/')}/archive"
        system, root = open_folder(base.rstrip("/"))
        return Archive(system, f"{root}/{BRONZE.layer}/{BRONZE.table}")

    def path(self, folder: str) -> str:
        """Path of a unit's folder, or of a file in it."""
        return f"{self.root}/{folder}"

    def units(self, days: Sequence[date] | None = None) -> list[Unit]:
        """Read the manifests (of `days`; None: all), by day and time.

        Raises LakehouseError for a manifest that cannot be read.
        """
        folders = [self.root] if days is None else [self.path(f"{_DAY}{day}") for day in days]
        paths = [info.path for folder in folders for info in self._files(folder) if info.base_name == MANIFEST]
        with ThreadPoolExecutor(_READERS) as pool:
            return sorted(pool.map(self._read, paths), key=lambda unit: (unit.day, unit.created_at))

    def leftovers(self) -> list[str]:
        """Folders of runs without a manifest: a run that died, whose rows are in Bronze still."""
        runs: dict[str, set[str]] = {}
        for info in self._files(self.root):
            folder, _, name = info.path.removeprefix(f"{self.root}/").rpartition("/")
            runs.setdefault(folder, set()).add(name)
        return sorted(folder for folder, names in runs.items() if MANIFEST not in names)

    def remove(self, folder: str) -> None:
        """Remove a unit's folder, its manifest first: what a crash leaves is a leftover then."""
        manifest = self.path(f"{folder}/{MANIFEST}")
        if self.system.get_file_info(manifest).type == pa_fs.FileType.File:
            self.system.delete_file(manifest)
        self.system.delete_dir(self.path(folder))

    def write(self, unit: Unit) -> None:
        """Write the manifest, whole or not at all; from now on the unit counts."""
        path = self.path(f"{unit.folder}/{MANIFEST}")
        with self.system.open_output_stream(f"{path}.tmp") as stream:
            stream.write(unit.manifest().encode())
        keep(self.system, f"{path}.tmp")
        self.system.move(f"{path}.tmp", path)
        keep(self.system, path)

    def rows(self, *units: Unit) -> ds.Dataset:
        """The rows of units."""
        return dataset(self.system, [self.path(f"{unit.folder}/{file.name}") for unit in units for file in unit.files])

    def problem(self, unit: Unit) -> str | None:
        """Read a unit's files back and say what differs from its manifest, naming the file; None where nothing does."""
        for file in unit.files:
            path = self.path(f"{unit.folder}/{file.name}")
            try:
                found, size = sha256(self.system, path)
            except OSError:
                return f"{path} cannot be read"
            if size != file.bytes:
                return f"{path} has {size:,} bytes, its manifest says {file.bytes:,}"
            if found != file.sha256:
                return f"{path} has other bytes than its manifest says (SHA-256)"
        folder = self.path(unit.folder)
        try:
            held = figures(read(self.rows(unit)))
        except (pa.ArrowException, OSError, LakehouseError) as error:
            return f"{folder} cannot be read as Parquet ({type(error).__name__})"
        return None if held == unit.parts else f"{folder} holds other rows than its manifest says ({_said(held, unit.parts)})"

    def _files(self, folder: str) -> list[pa_fs.FileInfo]:
        found = self.system.get_file_info(pa_fs.FileSelector(folder, recursive=True, allow_not_found=True))
        return [info for info in found if info.type == pa_fs.FileType.File]

    def _read(self, path: str) -> Unit:
        try:
            with self.system.open_input_stream(path) as stream:
                return _unit(json.loads(stream.read().decode()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"The manifest {path} cannot be read ({type(error).__name__}); put it back from a backup of the archive."
            raise LakehouseError(msg) from None


def _unit(tree: dict[str, Any]) -> Unit:
    return Unit(
        day=date.fromisoformat(tree["day"]),
        run=tree["run"],
        bronze_version=tree["bronze_version"],
        created_at=datetime.fromisoformat(tree["created_at"]),
        keep_until=date.fromisoformat(tree["keep_until"]),
        files=tuple(ArchiveFile(**file) for file in tree["files"]),
        parts=tuple(Part(**part) for part in tree["parts"]),
        schema=tuple((name, kind) for name, kind in tree["schema"]),
    )


def _said(held: Figures, expected: Figures) -> str:
    rows = [sum(part.rows for part in parts) for parts in (held, expected)]
    return f"{rows[0]:,} rows for {rows[1]:,}" if rows[0] != rows[1] else "as many rows, but not the same"
