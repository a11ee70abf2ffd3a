"""The one way to small files: a folder whose files are listed, read whole, created if absent, replaced and deleted.

Backends are `local.py` and `s3.py`; `backends.py` picks one by the path. `wrappers.py` puts faults, counts and delays around
any of them. Tables' data files are Delta's, and are read through `arrow_storage.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

READERS = 16
"""Files read at the same time: on S3 a checkpoint is hundreds of small requests."""


@dataclass(frozen=True)
class Entry:
    """Size in bytes and last change of a file."""

    size: int
    modified: datetime


@dataclass(frozen=True)
class Abilities:
    """What a backend can do beside the protocol.

    `locks`: a lock on a file dies with its holder. `rights`: who may read and write is seen before it is tried. `empty_folders`:
    a folder is there without a file in it. `checksums`: it tells by itself that bytes have changed.
    """

    locks: bool
    rights: bool
    empty_folders: bool
    checksums: bool


class Storage(Protocol):
    """A folder and all files below it, named by their path in it with `/`.

    Errors of disk or network are LakehouseErrors with one sentence; a file that is not there is a FileNotFoundError, one that is
    not readable an UnreadableError.
    """

    @property
    def path(self) -> str:
        """Path or URI as the user gave it, without a slash at its end."""

    @property
    def abilities(self) -> Abilities:
        """What the backend can do."""

    def files(self, folder: str = "") -> dict[str, Entry]:
        """All files below `folder` by their path in the storage, sorted by name; none where it is absent."""

    def names(self, folder: str = "") -> list[str]:
        """Names of the files and folders in `folder` itself, sorted; none where it is absent."""

    def read(self, name: str) -> bytes:
        """Read a file whole."""

    def create(self, name: str, content: bytes) -> None:
        """Write a file that is not there yet, whole or not at all; raises FileExistsError where it is there."""

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, over the one that is there; a reader sees the old content or the new one."""

    def delete(self, name: str) -> None:
        """Delete a file where there is one, and the folders that it leaves empty; the storage's own stays."""

    def remove(self, folder: str = "") -> None:
        """Delete a folder with all that is in it; nothing where it is absent."""


def is_empty(storage: Storage) -> bool:
    """Tell whether nothing lies in the storage, not even an empty folder."""
    return not storage.names()


def read_all(storage: Storage, names: Iterable[str]) -> dict[str, bytes]:
    """Read files side by side; one that has gone meanwhile (Spark deletes old batches) is left out."""

    def read(name: str) -> bytes | None:
        return read_if_there(storage, name)

    wanted = list(names)
    with ThreadPoolExecutor(READERS) as pool:
        return {name: content for name, content in zip(wanted, pool.map(read, wanted), strict=True) if content is not None}


def read_if_there(storage: Storage, name: str) -> bytes | None:
    """Read a file whole; None where it is absent."""
    try:
        return storage.read(name)
    except FileNotFoundError:
        return None
