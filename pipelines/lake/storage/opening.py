"""Opens files and Delta tables for plain reads, and tells absent, not readable, not understood and damaged apart.

Absent is None, an empty list or FileNotFoundError; the other three are UnreadableError, UnknownFeatureError and DamagedError.
Python's `Path.exists` and `glob`, and deltalake's TableNotFoundError, call a folder absent that this user may not search: a
reader that believes them makes a table on top of another, or advises to rebuild what is whole. So no reader asks them.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pipelines.lake.errors import (
    DamagedError,
    LakehouseError,
    UnknownFeatureError,
    UnreadableError,
    UnreadableNowError,
    UsageError,
)
from pipelines.lake.playbooks import page_for_files_of, path_of, table_in

if TYPE_CHECKING:
    from deltalake import DeltaTable

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
_UNKNOWN_FEATURES = re.compile(
    r"Feature '(\w[\w-]*)' is not supported|(minimum reader version \d+)|table features required: \[([^\]]*)\]"
    r"|([Cc]olumn mapping|catalog-managed)"
)
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
    text = _COLOURS.sub("", str(error))
    number = error.errno if isinstance(error, OSError) else None
    found = _NUMBER.search(text)
    number = number or (int(found[1]) if found else None) or (errno.EACCES if "Permission denied" in text else None)
    if number in _ADVICE:
        named = _PATH.search(text)
        place = getattr(error, "filename", None) or (named[1].strip() if named else path)
        return unreadable(os.fsdecode(place) if isinstance(place, str | bytes) else path, OSError(number, ""), done)
    if "://" in path and _REFUSED.search(text):
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


def open_table(path: str, version: int | None = None) -> DeltaTable | None:
    """Open the log of the Delta table at `path`, without reading a row; None where there is no table.

    Raises UnreadableError, UnknownFeatureError, DamagedError. What its rows need beyond that, `require_plain` looks at.
    """
    import deltalake  # noqa: PLC0415 - `--help` and the settings need it not
    from deltalake.exceptions import DeltaError, TableNotFoundError  # noqa: PLC0415

    try:
        return deltalake.DeltaTable(path, version=version)
    except TableNotFoundError as error:
        _refuse_unseen(path, error)
        return None
    except (DeltaError, OSError, ValueError) as error:
        raise _told(path, error) from None


def existing_table(path: str, version: int | None = None) -> DeltaTable:
    """`open_table` where there has to be one. Raises UsageError where there is none."""
    table = open_table(path, version)
    if table is None:
        msg = f"There is no Delta table at {path}; run the job that writes it first, or correct `lake.root`."
        raise UsageError(msg)
    return table


def has_table(path: str) -> bool:
    """Whether a Delta table lies at `path`; raises as `open_table`, where nobody can tell."""
    return open_table(path) is not None


def require_plain(table: DeltaTable) -> None:
    """Raise UnknownFeatureError where the table's data files alone are not its rows.

    Read rightly: widened types, times without a zone, checkpoints of the second version; deletion vectors that are switched
    on while no file has one; column mapping that is off; variants that no column has. The version counts as well as the list:
    a table with column mapping and reader version 2 has no list.
    """
    unknown = reader_features(table) - _PLAIN
    if not maps_columns(table.metadata().configuration):
        unknown.discard("columnMapping")
    if "variantType" in unknown and not has_variants(table):
        unknown.discard("variantType")
    if "deletionVectors" in unknown and not deleted_rows(table):
        unknown.discard("deletionVectors")
    if unknown:
        raise _unknown(table.table_uri, sorted(unknown))


def reader_features(table: DeltaTable) -> set[str]:
    """Table features that a reader of the table has to know; earlier protocols said it by a number, 2 is column mapping."""
    protocol = table.protocol()
    return {"columnMapping"} if protocol.min_reader_version == 2 else set(protocol.reader_features or ())


def maps_columns(properties: Mapping[str, str]) -> bool:
    """Whether a table with these properties uses column mapping: writers list the feature though it is off."""
    return properties.get(COLUMN_MAPPING, "none") != "none"


def has_variants(table: DeltaTable) -> bool:
    """Whether a column, or a part of one, is a variant: writers list the feature though none is."""
    return _is_variant(json.loads(table.schema().to_json()))


def _is_variant(part: object) -> bool:
    """Whether a part of a schema as the log has it is a variant, or holds one."""
    if isinstance(part, list):
        return any(_is_variant(one) for one in part)
    if not isinstance(part, dict):
        return part == "variant"
    return any(_is_variant(part.get(key)) for key in ("fields", "type", "elementType", "keyType", "valueType"))


COLUMN_MAPPING = "delta.columnMapping.mode"
_PLAIN = {"timestampNtz", "v2Checkpoint", "v2Checkpoint-preview", "vacuumProtocolCheck", "typeWidening", "typeWidening-preview"}
"""Features that change nothing for who reads the data files by the table's schema (each tried)."""


def deleted_rows(table: DeltaTable) -> int:
    """How many rows of the data files deletion vectors take out."""
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return 0
    import pyarrow as pa  # noqa: PLC0415

    with told_apart(table.table_uri):
        vectors = pa.table(table.deletion_vectors()).column("selection_vector")
    return sum(len(vector.values) - (pa.compute.sum(vector.values).as_py() or 0) for vector in vectors)


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


def _refuse_unseen(path: str, error: Exception) -> None:
    """Raise where deltalake found no table because it could not look, or because the log that is there has lost its commits."""
    if "://" in path:
        refused = as_unreadable(error, path)
        if refused is not None:
            raise refused
        return
    log = f"{path}/_delta_log"
    if look(log) is not None and any(re.match(r"\d{20}\.", name) for name in names_in(log)):
        raise _damaged(path, error)


def _told(path: str, error: Exception) -> LakehouseError:
    text = _reason(error)
    unknown = _UNKNOWN_FEATURES.search(text)
    if unknown is not None:
        return _unknown(path, [next(group for group in unknown.groups() if group)])
    return as_unreadable(error, path) or _barred_log(path) or _damaged(path, error)


def _barred_log(path: str) -> UnreadableError | None:
    """The first part of a local table's log that is not readable: readers may say it in words of their own."""
    if "://" in path:
        return None
    place = f"{path}/_delta_log"
    try:
        for name in names_in(place):
            with suppress(FileNotFoundError), open(f"{place}/{name}", "rb"):
                pass
    except OSError as error:
        return as_unreadable(error, place)
    except UnreadableError as error:
        return error
    return None


def require_seen(path: str) -> None:
    """Raise UnreadableError where this user may not read one of the files of the local table at `path`.

    Before it is judged by what Spark says of reading it: missing or cut files are damage, these are not.
    """
    table = None if "://" in path else open_table(path)
    for uri in table.file_uris() if table is not None else ():
        place = unquote(uri.removeprefix("file://"))
        try:
            with open(place, "rb"):
                pass
        except OSError as error:
            if not is_absent(error):
                raise unreadable(place, error) from None


def _unknown(path: str, features: list[str]) -> UnknownFeatureError:
    place = path.removeprefix("file://").rstrip("/")
    msg = (
        f"The table {place} has {', '.join(features)}, which the readers without Spark do not understand, so its rows were not "
        "read; `lakehouse sql` reads them, and playbooks/table-contract.md says how to switch it off."
    )
    return UnknownFeatureError(msg)


def _damaged(path: str, error: Exception) -> DamagedError:
    page = path_of(page_for_files_of(table_in(path) or ""))
    msg = f"The log of the table {path} is damaged ({_reason(error)[:200]}); see {page}."
    return DamagedError(msg)


def _reason(error: Exception) -> str:
    lines = (line.strip().lstrip("↳").strip() for line in _COLOURS.sub("", str(error)).splitlines())
    return ": ".join(line for line in lines if line)
