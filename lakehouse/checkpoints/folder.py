"""A folder of small files, on the local disk or on S3: list, read whole, write new, delete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.storage.opening import as_unreadable, is_there, look, names_in, unreadable

READERS = 16
"""Files read at the same time: on S3 a checkpoint is hundreds of small requests."""
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):(.*)", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """Size in bytes and last change of a file."""

    size: int
    modified: datetime


class Folder(Protocol):
    """A folder and all files below it, named by their path in it with `/`.

    Errors of disk or network are LakehouseErrors with one sentence; a file that is not there is a FileNotFoundError, one that is
    not readable an UnreadableError.
    """

    @property
    def path(self) -> str:
        """Path or URI as the user gave it, without a slash at its end."""

    def files(self) -> dict[str, Entry]:
        """All files below the folder, sorted by name; none where it is absent."""

    def is_empty(self) -> bool:
        """Tell whether nothing lies here, not even an empty folder."""

    def read(self, name: str) -> bytes:
        """Read a file whole."""

    def write_new(self, name: str, content: bytes) -> None:
        """Write a file that is not there yet; raises FileExistsError where it is."""

    def delete(self, name: str) -> None:
        """Delete a file, and the folders that it leaves empty."""


def open_folder(path: str) -> Folder:
    """Give the folder at a local path or an `s3://` or `s3a://` URI; nothing is read yet.

    Raises UsageError where the scheme is another one.
    """
    path = path.rstrip("/") or path
    uri = _SCHEME.fullmatch(path)
    if uri is None:
        return LocalFolder(path)
    if uri[1] == "file":
        return LocalFolder(path, re.sub("^//+", "/", uri[2]))
    if uri[1] in ("s3", "s3a"):
        from lakehouse.checkpoints.s3_folder import S3Folder  # noqa: PLC0415 - boto3 is slow to import

        return S3Folder(path)
    msg = f"The path {path} has the scheme {uri[1]}, expected a local path, s3:// or s3a://; give one of these."
    raise UsageError(msg)


def read_all(folder: Folder, names: Iterable[str]) -> dict[str, bytes]:
    """Read files side by side; one that has gone meanwhile (Spark deletes old batches) is left out."""

    def read(name: str) -> bytes | None:
        try:
            return folder.read(name)
        except FileNotFoundError:
            return None

    wanted = list(names)
    with ThreadPoolExecutor(READERS) as pool:
        return {name: content for name, content in zip(wanted, pool.map(read, wanted), strict=True) if content is not None}


@dataclass(frozen=True)
class LocalFolder:
    """A folder on the local disk; `place` is where it is, if `path` is a `file:` URI."""

    path: str
    place: str = ""

    @property
    def _root(self) -> Path:
        return Path(self.place or self.path)

    def files(self) -> dict[str, Entry]:
        """All files below the folder."""
        with _told(self.path, "read"):
            found = {}
            for parent, _, names in os.walk(self._root, onerror=_unless_absent):
                for name in names:
                    file = Path(parent) / name
                    stat = look(file)
                    if stat is None:  # a running query deletes and renames files
                        continue
                    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
                    found[file.relative_to(self._root).as_posix()] = Entry(stat.st_size, modified)
            return dict(sorted(found.items()))

    def is_empty(self) -> bool:
        """Tell whether nothing lies here."""
        with _told(self.path, "read"):
            if not is_there(self._root):
                return True
            if not self._root.is_dir():
                msg = f"{self.path} is a file, expected a folder; give another path."
                raise UsageError(msg)
            return not names_in(self._root)

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        with _told(f"{self.path}/{name}", "read"):
            return (self._root / name).read_bytes()

    def write_new(self, name: str, content: bytes) -> None:
        """Write a new file through to the disk."""
        file = self._root / name
        with _told(f"{self.path}/{name}", "written"):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())

    def delete(self, name: str) -> None:
        """Delete a file and the folders that it leaves empty, up to this one."""
        file = self._root / name
        with _told(f"{self.path}/{name}", "deleted"):
            file.unlink(missing_ok=True)
            folder = file.parent
            while folder.is_relative_to(self._root) and folder.is_dir() and not names_in(folder):
                folder.rmdir()
                folder = folder.parent


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _told(path: str, done: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        if (unseen := as_unreadable(error, path)) is not None:
            raise unseen if done == "read" else unreadable(error.filename or path, error, "writable") from None
        from pipelines.lake.retries import classify  # noqa: PLC0415 - only where there is an error to name

        msg = f"{path} cannot be {done} ({error.strerror}); mend that, or give another path: see {classify(error).playbook}."
        raise LakehouseError(msg) from None
