"""Says which paths are local and which are on an object store; nothing else asks a path for its scheme."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from deltalake import DeltaTable  # settings come here, and `--help` need not pay for it

_FILE = re.compile(r"file:(?://)?(?=/)")
_SCHEME = "://"


def local_path(path: str) -> str:
    """A `file:` URI as the plain path that it is: only those are guarded by locks; all else as it stands."""
    return _FILE.sub("", path) if _FILE.match(path) else path


def is_local(path: str) -> bool:
    """Whether a path or URI lies on the local disk."""
    return _SCHEME not in local_path(path)


def local_place(path: str) -> Path | None:
    """Where a path or URI lies on the local disk; None where it lies on an object store."""
    return Path(local_path(path)) if is_local(path) else None


def absolute(path: str) -> str:
    """Give a local path from the root, a URI as it is."""
    return path if _SCHEME in path else os.path.abspath(path)


def make_folder(path: str) -> None:
    """Make a local folder unless it is there; an object store needs none."""
    place = local_place(path)
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)


def place_of(table: DeltaTable) -> str:
    """The folder of a table as a path, or its URI on an object store: deltalake quotes a local one, such as `my%20lake`."""
    uri: str = table.table_uri
    return unquote(local_path(uri)) if is_local(uri) else uri


def scheme_of(path: str) -> str:
    """The scheme of a URI, such as `s3a`; empty for a local path."""
    return "" if is_local(path) else path.partition(_SCHEME)[0]
