"""Bronze's archive as the checker sees it: the Parquet files that its manifests name, and what it has given up."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pa_fs

from pipelines.lake.delta_log.plain_read import PARQUET
from pipelines.lake.errors import LakehouseError
from pipelines.lake.settings import Settings
from pipelines.lake.storage.arrow_storage import open_folder
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import BRONZE

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ArchiveFiles:
    """Parquet files `names` below `base`, a folder or URI."""

    base: str
    names: tuple[str, ...] = ()

    def dataset(self) -> ds.Dataset:
        """Rows of all files."""
        system, root = open_folder(self.base)
        paths = [f"{root}/{name}" for name in self.names]
        # Files of different ages have different columns: all that one of them has.
        schema = pa.unify_schemas([PARQUET.inspect(path, system) for path in paths])
        return ds.dataset(paths, schema=schema, format=PARQUET, filesystem=system)


def find_archive(settings: Settings) -> ArchiveFiles:
    """Find the files that count: those of folders with a manifest; others are what a run that died has left.

    Raises LakehouseError for a manifest that is damaged, or a file that it names and that is not there; UnreadableError.
    """
    base = (settings.retention.archive or f"{settings.lake.root.rstrip('/')}/archive").rstrip("/")
    base = f"{base}/{BRONZE.layer}/{BRONZE.table}"
    system, root = open_folder(base)
    with told_apart(base):
        infos = system.get_file_info(pa_fs.FileSelector(root, recursive=True, allow_not_found=True))
    there = {info.path.removeprefix(f"{root}/") for info in infos if info.type == pa_fs.FileType.File}
    names = []
    for path in sorted(there):
        folder, _, name = path.rpartition("/")
        if name != _MANIFEST:
            continue
        try:
            with told_apart(f"{base}/{path}"), system.open_input_stream(f"{root}/{path}") as stream:
                named = [f"{folder}/{file['name']}" for file in json.loads(stream.read())["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            named = [f"{folder}/?"]
        if not there.issuperset(named):
            msg = (
                f"I7 violated: the archive's manifest {base}/{path} cannot be read, or names a file that is not there "
                "(playbooks/bronze-archive.md)."
            )
            raise LakehouseError(msg)
        names += named
    return ArchiveFiles(base, tuple(names))
