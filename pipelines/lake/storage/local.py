"""A folder on the local disk.

Hadoop keeps a checksum beside each file that it writes (`.<name>.crc`) and compares the two at each read: the one of a file that
is replaced or deleted here goes first.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.lake.causes.classify import classify
from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.storage.local_files import as_unreadable, look, names_in, unreadable
from pipelines.lake.storage.protocol import Abilities, Entry

_ABILITIES = Abilities(locks=True, rights=True, empty_folders=True, checksums=False)


@dataclass(frozen=True)
class LocalStorage:
    """A folder on the local disk, at `place`; `path` is how the user named it."""

    path: str
    place: Path

    @property
    def abilities(self) -> Abilities:
        """What the disk can do."""
        return _ABILITIES

    def files(self, folder: str = "") -> dict[str, Entry]:
        """All files below `folder`."""
        with self._told(folder, "read"):
            found = {}
            for parent, _, names in os.walk(self.place / folder, onerror=_unless_absent):
                for name in names:
                    file = Path(parent) / name
                    stat = look(file)
                    if stat is None:  # a running query deletes and renames files
                        continue
                    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
                    found[file.relative_to(self.place).as_posix()] = Entry(stat.st_size, modified)
            return dict(sorted(found.items()))

    def names(self, folder: str = "") -> list[str]:
        """Names of the files and folders in `folder` itself."""
        place = self.place / folder
        with self._told(folder, "read"):
            names = names_in(place)
            if not names and look(place) is not None and not place.is_dir():
                msg = f"{self._path(folder)} is a file, expected a folder; give another path."
                raise UsageError(msg)
            return names

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        with self._told(name, "read"):
            return (self.place / name).read_bytes()

    def create(self, name: str, content: bytes) -> None:
        """Write a new file through to the disk: it gets its name when it is whole, by a link, which is one step."""
        with self._told(name, "written"), self._written(name, content) as whole:
            os.link(whole, self.place / name)
            whole.unlink()

    def replace(self, name: str, content: bytes) -> None:
        """Write a file through to the disk, over the one that is there."""
        with self._told(name, "written"), self._written(name, content) as whole:
            self._checksum(name).unlink(missing_ok=True)
            whole.replace(self.place / name)

    def delete(self, name: str) -> None:
        """Delete a file and the folders that it leaves empty, up to this one."""
        file = self.place / name
        with self._told(name, "deleted"):
            self._checksum(name).unlink(missing_ok=True)
            with suppress(NotADirectoryError):
                file.unlink(missing_ok=True)
            self._remove_empty(file.parent)

    def remove(self, folder: str = "") -> None:
        """Delete a folder with all that is in it."""
        place = self.place / folder
        with self._told(folder, "deleted"):
            with suppress(FileNotFoundError):
                shutil.rmtree(place)
            self._remove_empty(place.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Delete the folder, and those above it, as far as they are empty; the storage's own stays."""
        while folder != self.place and folder.is_relative_to(self.place):
            try:
                folder.rmdir()
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY):
                    return
                raise
            folder = folder.parent

    @contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[Path]:
        """The content in a hidden file beside `name`; deleted where the block leaves it, and kept on the disk with its folder."""
        file = self.place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        hidden = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            with hidden.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            yield hidden
        except BaseException:
            with suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise
        handle = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _checksum(self, name: str) -> Path:
        file = self.place / name
        return file.with_name(f".{file.name}.crc")

    def _path(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    @contextmanager
    def _told(self, name: str, done: str) -> Iterator[None]:
        path = self._path(name)
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            if (unseen := as_unreadable(error, path)) is not None:
                raise unseen if done == "read" else unreadable(error.filename or path, error, "writable") from None
            msg = f"{path} cannot be {done} ({error.strerror}); mend that, or give another path: see {classify(error).playbook}."
            raise LakehouseError(msg) from None


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
