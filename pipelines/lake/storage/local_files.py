"""Looks at local files, and tells absent from not readable.

Absent is None, an empty list or FileNotFoundError; not readable is UnreadableError. Python's `Path.exists` and `glob` call a
folder absent that this user may not search: a reader that believes them makes a table on top of another, or advises to rebuild
what is whole. So no reader asks them.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from pipelines.lake.errors import LakehouseError, UnreadableError, UnreadableNowError
from pipelines.lake.places import is_local

_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_OWNER = "run this as the user that owns the lake, or give this user read and search permission"
_HANDLES = "raise the limit (`ulimit -n 4096`), then try again"
_DISK = "look at the disk and its mount, then try again"
_ADVICE = {
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EMFILE: _HANDLES,
    errno.ENFILE: _HANDLES,
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.ENOTCONN: _DISK,
    errno.ENODEV: _DISK,
    errno.EHOSTDOWN: _DISK,
}
"""What keeps a file from being read though it may be there and whole, and what to do about it."""
_NUMBER = re.compile(r"(?:os error |\[errno )(\d+)", re.IGNORECASE)
"""How Rust's and Arrow's errors, which are texts, name the errno."""
_PATH = re.compile(r"""(?:operation on|path|file|directory) ['"]?(/[^'"\n]+)""")
_REFUSED = re.compile(
    r"\b403\b|AccessDenied|Forbidden|\b401\b|Unauthorized|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|PermissionDenied"
)
"""How an object store refuses: what it refuses to show is not known to be absent."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def is_absent(error: OSError) -> bool:
    """Whether the error says that nothing is there."""
    return error.errno in _ABSENT or isinstance(error, FileNotFoundError)


def unreadable(path: str | Path, error: OSError, done: str = "readable") -> UnreadableError:
    """The sentence for a local path that is not readable (or `done`: writable); it names the folder that bars the way."""
    number = error.errno or errno.EIO
    place = _barred(str(path)) if number in (errno.EACCES, errno.EPERM) else str(path)
    said = os.strerror(number)
    kind = UnreadableError if number in (errno.EACCES, errno.EPERM) else UnreadableNowError
    return kind(_sentence(place, said[:1].lower() + said[1:], _ADVICE.get(number, _DISK), done))


def as_unreadable(error: BaseException, path: str, done: str = "readable") -> UnreadableError | None:
    """What kept `path` from being read, if that is why some library raised `error`; None where it is anything else.

    Libraries say it as an OSError, or as a text: Arrow, deltalake and DuckDB.
    """
    if isinstance(error, UnreadableError):
        return error
    text = said_by(error)
    number = error.errno if isinstance(error, OSError) else None
    found = _NUMBER.search(text)
    number = number or (int(found[1]) if found else None) or (errno.EACCES if "Permission denied" in text else None)
    if number in _ADVICE:
        named = _PATH.search(text)
        place = getattr(error, "filename", None) or (named[1].strip() if named else path)
        return unreadable(os.fsdecode(place) if isinstance(place, str | bytes) else path, OSError(number, ""), done)
    if not is_local(path) and _REFUSED.search(text):
        return UnreadableError(_sentence(path, "the store refuses access", "check the credentials and their rights", done))
    return None


@contextmanager
def told_apart(path: str | Path) -> Iterator[None]:
    """Raise UnreadableError where the block's read of `path` fails because it is not readable; other errors stay as they are."""
    try:
        yield
    except LakehouseError:
        raise
    except Exception as error:
        found = as_unreadable(error, str(path))
        if found is None:
            raise
        raise found from None


def look(path: str | Path) -> os.stat_result | None:
    """What the local file system says of `path`; None where nothing is there. Raises UnreadableError."""
    try:
        return os.stat(path)
    except OSError as error:
        if is_absent(error):
            return None
        raise unreadable(path, error) from None


def is_there(path: str | Path) -> bool:
    """Whether something lies at the local `path`. Raises UnreadableError."""
    return look(path) is not None


def read_text(path: str | Path) -> str:
    """Read a local UTF-8 file whole. Raises FileNotFoundError, UnreadableError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        if is_absent(error) or error.errno not in _ADVICE:
            raise
        raise unreadable(path, error) from None


def names_in(folder: str | Path) -> list[str]:
    """Names in a local folder, sorted; none where it is absent. Raises UnreadableError."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if is_absent(error):
            return []
        raise unreadable(folder, error) from None


def files_in(folder: str | Path, pattern: str) -> list[Path]:
    """The files of a local folder whose name fits `pattern`, sorted; none where it is absent. Raises UnreadableError."""
    return [Path(folder) / name for name in names_in(folder) if fnmatch(name, pattern)]


def files_below(folder: str | Path, pattern: str) -> list[Path]:
    """The files below a local folder whose name fits `pattern`, sorted; none where it is absent. Raises UnreadableError."""

    def told(error: OSError) -> None:
        if not is_absent(error):
            raise unreadable(error.filename or folder, error) from None

    walked = ((Path(parent) / name for name in names) for parent, _, names in os.walk(folder, onerror=told))
    found = [path for paths in walked for path in paths if fnmatch(path.name, pattern)]
    for path in found:
        look(path)  # a folder that may be listed and not searched
    return sorted(found)


def _barred(path: str) -> str:
    """The folder of the way to `path` that this user may not search; `path` itself where the way is free."""
    place = Path(os.path.abspath(path))
    for one in (*reversed(place.parents), place):
        try:
            os.lstat(one)
        except OSError as error:
            return str(one.parent) if not is_absent(error) else path
    return str(place)


def _sentence(place: str, why: str, advice: str, done: str) -> str:
    return f"{place} is not {done}: {why}; {advice}."


def said_by(error: BaseException) -> str:
    """What a library's error says, without colours."""
    return _COLOURS.sub("", str(error))
