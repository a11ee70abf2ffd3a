"""Folders and Delta tables as Arrow's own file systems, which need no Python while they read."""

from __future__ import annotations

import pyarrow.fs as pa_fs
from deltalake import DeltaTable

from pipelines.lake.places import local_place, place_of


def open_folder(path: str) -> tuple[pa_fs.FileSystem, str]:
    """Give the file system of `path` (local, or a URI such as s3://) and the folder's path on it."""
    place = local_place(path)
    if place is not None:
        return pa_fs.LocalFileSystem(), str(place.absolute())
    system, root = pa_fs.FileSystem.from_uri(path.replace("s3a://", "s3://", 1))
    return system, root.rstrip("/")


def table_storage(table: DeltaTable) -> pa_fs.FileSystem:
    """Give the table's folder as a file system: its paths are those in the table's log, unquoted.

    Not deltalake's own, which is a Python object. Arrow's threads then need Python's lock: to say what failed they wait for it
    while they hold a lock of Arrow's, for which `Scanner.to_reader` waits with Python's lock in hand, for ever; and one that
    still closes a file when Python ends aborts the process.
    """
    system, root = open_folder(place_of(table))
    return pa_fs.SubTreeFileSystem(root, system)
