"""Units of the archive: a day's rows that one run copied, in a folder of their own, with a manifest that says what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pa_fs

from pipelines.archive.content import Figures, Part, figures, read
from pipelines.archive.storage import dataset, sha256
from pipelines.lake.delta_log.plain_read import PARQUET
from pipelines.lake.errors import DataLossError, LakehouseError, UnreadableError
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.storage.arrow_storage import open_folder
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.storage.protocol import Storage
from pipelines.lake.tables import BRONZE

MANIFEST = "manifest.json"
_FORMAT = 1
_DAY, _RUN = "_event_date=", "run-"
_FOLDER = re.compile(rf"{_DAY}(\d{{4}}-\d\d-\d\d)/{_RUN}([0-9A-Za-z]+)")
"""A unit's folder. Nothing else below the archive is ever read or removed: it is not the archive's own."""
_READERS = 8


@dataclass(frozen=True)
class ArchiveFile:
    """A Parquet file of a unit; `bytes` is its size."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Unit:
    """Rows of `day` that the run `run` copied from `bronze_version`; `schema` are column names and Arrow types.

    `bronze_version` is None where the manifest was made anew: only the lost one knew it.
    """

    day: date
    run: str
    bronze_version: int | None
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
        return folder_of(self.day, self.run)

    def manifest(self) -> str:
        """Text of the manifest."""
        tree = {"format": _FORMAT, "table": str(BRONZE), "rows": self.rows, **asdict(self)}
        return json.dumps(tree, indent=1, default=str)


def folder_of(day: date, run: str) -> str:
    """Folder of a unit, below the archive of Bronze."""
    return f"{_DAY}{day}/{_RUN}{run}"


def key_of(folder: str) -> tuple[date, str] | None:
    """Day and run of a unit's folder; None for any other, such as one that somebody has renamed."""
    match = _FOLDER.fullmatch(folder)
    try:
        return (date.fromisoformat(match[1]), match[2]) if match else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Survey:
    """What lies in the archive besides units: folders of runs without a manifest, and files that no run has made."""

    leftovers: tuple[str, ...]
    foreign: tuple[str, ...]


@dataclass(frozen=True)
class Archive:
    """The archive of Bronze at one place: its manifests in `storage`, its Parquet files on `system`, below `root`."""

    storage: Storage
    system: pa_fs.FileSystem
    root: str

    @staticmethod
    def of(settings: Settings) -> Archive:
        """The archive that the settings name."""
        base = settings.retention.archive or f"{settings.lake.root.rstrip('/')}/archive"
        place = f"{absolute(base.rstrip('/'))}/{BRONZE.layer}/{BRONZE.table}"
        system, root = open_folder(place)
        return Archive(open_storage(place), system, root)

    def path(self, folder: str) -> str:
        """Path of a unit's folder, or of a file in it."""
        return f"{self.root}/{folder}"

    def units(self, days: Sequence[date] | None = None) -> list[Unit]:
        """Read the manifests (of `days`; None: all), by day and time.

        Raises LakehouseError for a manifest that cannot be read.
        """
        folders = [""] if days is None else [f"{_DAY}{day}" for day in days]
        found = [split for folder in folders for split in self._files(folder)]
        paths = [f"{folder}/{name}" for folder, name in found if name == MANIFEST and key_of(folder)]
        with ThreadPoolExecutor(_READERS) as pool:
            return sorted(pool.map(self._read, paths), key=lambda unit: (unit.day, unit.created_at))

    def survey(self) -> Survey:
        """Look at which folders and files are no units; no file is opened."""
        runs: dict[str, set[str]] = {}
        for folder, name in self._files(""):
            runs.setdefault(folder, set()).add(name)
        leftovers = [folder for folder, names in runs.items() if key_of(folder) and MANIFEST not in names]
        foreign = [(folder, name) for folder, names in runs.items() if not key_of(folder) for name in names]
        return Survey(tuple(sorted(leftovers)), tuple(sorted(f"{folder}/{name}".lstrip("/") for folder, name in foreign)))

    def remove(self, folder: str) -> None:
        """Remove a unit's folder, its manifest first: what a crash leaves is a leftover then.

        Raises DataLossError for any other folder: it may hold units.
        """
        if not key_of(folder):
            msg = (
                f"`{folder}` of the archive {self.root} was to be removed, expected the folder of one run; nothing was removed, "
                "see playbooks/bronze-archive.md."
            )
            raise DataLossError(msg)
        self.storage.delete(f"{folder}/{MANIFEST}")
        self.storage.remove(folder)

    def write(self, unit: Unit) -> None:
        """Write the manifest, whole or not at all; from now on the unit counts."""
        self.storage.replace(f"{unit.folder}/{MANIFEST}", unit.manifest().encode())

    def rows(self, *units: Unit) -> ds.Dataset:
        """The rows of units, with every column that one of them has: Bronze got some after the first were archived."""
        files = {unit: [self.path(f"{unit.folder}/{file.name}") for file in unit.files] for unit in units}
        # One file tells the columns of all units with the same ones.
        one_of_each = {unit.schema: paths[0] for unit, paths in files.items() if paths}
        schemas = [PARQUET.inspect(path, self.system) for path in one_of_each.values()]
        paths = [path for found in files.values() for path in found]
        return dataset(self.system, paths, pa.unify_schemas(schemas) if schemas else None)

    def parquet_files(self, folder: str) -> list[str]:
        """Names of the Parquet files that lie in a unit's folder, whatever its manifest says."""
        return sorted(name for at, name in self._files(folder) if at == folder and name.endswith(".parquet"))

    def problem(self, unit: Unit) -> str | None:
        """Read a unit's files back and say what differs from its manifest, naming the file; None where nothing does.

        Raises UnreadableError where they cannot be looked at.
        """
        for file in unit.files:
            path = self.path(f"{unit.folder}/{file.name}")
            try:
                with told_apart(path):
                    found, size = sha256(self.system, path)
            except OSError:
                return f"{path} cannot be read"
            if size != file.bytes:
                return f"{path} has {size:,} bytes, its manifest says {file.bytes:,}"
            if found != file.sha256:
                return f"{path} has other bytes than its manifest says (SHA-256)"
        folder = self.path(unit.folder)
        try:
            with told_apart(folder):
                held = figures(read(self.rows(unit)))
        except UnreadableError:
            raise
        except (pa.ArrowException, OSError, LakehouseError) as error:
            return f"{folder} cannot be read as Parquet ({type(error).__name__})"
        return None if held == unit.parts else f"{folder} holds other rows than its manifest says ({_said(held, unit.parts)})"

    def _files(self, folder: str) -> list[tuple[str, str]]:
        """All files below a folder, as their folder (below the archive) and their name. Raises UnreadableError."""
        return [(folder, name) for folder, _, name in (path.rpartition("/") for path in self.storage.files(folder))]

    def _read(self, name: str) -> Unit:
        path = self.path(name)
        try:
            unit = _unit(json.loads(self.storage.read(name)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = (
                f"The manifest {path} cannot be read ({type(error).__name__}); put it back from a backup of the archive "
                "(playbooks/bronze-archive.md)."
            )
            raise LakehouseError(msg) from None
        expected = self.path(f"{unit.folder}/{MANIFEST}")
        if path != expected:
            # A folder that was copied or renamed: its rows would be read twice, or not found.
            msg = (
                f"The manifest {path} is that of {expected}; put its folder back there, or move it outside the archive "
                "(playbooks/bronze-archive.md)."
            )
            raise LakehouseError(msg)
        return unit


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
