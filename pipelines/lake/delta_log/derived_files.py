"""Files that Delta derives from a table's commits (checkpoints, `_last_checkpoint`, checksums): damaged ones are set aside.

Nothing is lost with them as long as the commits are there. Readers differ: a table whose checkpoint is cut neither Spark nor
deltalake reads, one whose `_last_checkpoint` names an empty or missing one deltalake does not. deltalake, and an append, take the
transaction ids of a checksum file for true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.delta_log.versions import COMMIT
from pipelines.lake.storage.arrow_storage import open_folder
from pipelines.lake.storage.local_files import names_in

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.[\w-]+)*\.parquet")
_LAST = "_last_checkpoint"
_LOOKED_BACK = 50
"""Commits whose transaction ids are compared with a checksum file."""
ASIDE = "damaged-"
"""Prefix of the name that a damaged file gets: no reader of Delta takes it for anything."""


@dataclass(frozen=True)
class Damage:
    """Damaged files of a table's log, by name, and why; `is_lost`: commits that a checkpoint stood for are gone, too."""

    names: tuple[str, ...]
    why: str
    is_lost: bool = False


def find_damage(path: str) -> Damage | None:
    """Look at the derived files that a reader of the table at `path` would use; None where they are sound, or there is no log.

    A checkpoint is opened, not read through. Nothing is changed.
    """
    system, root = open_folder(path)
    names = _names(system, root)
    commits = {int(found[1]) for name in names if (found := COMMIT.fullmatch(name))}
    if not commits:
        return None
    by_version: dict[int, list[str]] = {}
    for name in names:
        if found := _CHECKPOINT.fullmatch(name):
            by_version.setdefault(int(found[1]), []).append(name)
    broken: list[str] = []
    why: list[str] = []
    base = -1
    for version in sorted((one for one in by_version if one <= max(commits)), reverse=True):
        problems = {name: said for name in by_version[version] if (said := _problem(system, f"{root}/_delta_log/{name}"))}
        if not problems:
            base = version
            break
        broken += problems
        why += [f"{name} {said}" for name, said in problems.items()]
    sound = {version for version, files in by_version.items() if not set(files) & set(broken)}
    if _LAST in names and (said := _hint_problem(system, f"{root}/_delta_log/{_LAST}", sound)):
        broken.append(_LAST)
        why.append(f"{_LAST} {said}")
    if checksum := _checksum_problem(system, path, names):
        broken.append(checksum[0])
        why.append(" ".join(checksum))
    if not broken:
        return None
    is_whole = set(range(base + 1, max(commits) + 1)) <= commits
    return Damage(tuple(broken), "; ".join(why), is_lost=not is_whole)


def set_aside(path: str, damage: Damage) -> None:
    """Rename the damaged files, so that readers take the commits; the caller has seen that these are all there."""
    system, root = open_folder(path)
    for name in damage.names:
        with suppress(FileNotFoundError):
            system.move(f"{root}/_delta_log/{name}", f"{root}/_delta_log/{ASIDE}{name}")
        # Hadoop's own checksum of the file, beside it.
        with suppress(OSError):
            system.delete_file(f"{root}/_delta_log/.{name}.crc")


def _names(system: pa_fs.FileSystem, root: str) -> list[str]:
    folder = f"{root}/_delta_log"
    if isinstance(system, pa_fs.LocalFileSystem):
        # Names alone: a month of a live stream's log has millions of files.
        return names_in(folder)
    return [info.base_name for info in system.get_file_info(pa_fs.FileSelector(folder, allow_not_found=True))]


def _problem(system: pa_fs.FileSystem, path: str) -> str | None:
    try:
        with system.open_input_file(path) as file:
            if file.size() == 0:
                return "is empty"
            pq.ParquetFile(file)
    except PermissionError:
        return None
    except (pa.ArrowException, OSError):
        return "is cut or damaged"
    return None


def _hint_problem(system: pa_fs.FileSystem, path: str, sound: set[int]) -> str | None:
    said = _read_object(system, path)
    version = said.get("version")
    # One that is no JSON at all is passed over by each reader.
    if not isinstance(version, int) or version in sound:
        return None
    return f"names the checkpoint of version {version}, which is not there or damaged"


def _checksum_problem(system: pa_fs.FileSystem, path: str, names: Sequence[str]) -> tuple[str, str] | None:
    """A newest checksum file whose transaction ids are not those of the commits before it."""
    newest = max((name for name in names if re.fullmatch(r"\d{20}\.crc", name)), default=None)
    if newest is None:
        return None
    _, root = open_folder(path)
    said = {app: number for app, number in _said_transactions(_read_object(system, f"{root}/_delta_log/{newest}"))}
    seen: dict[str, int] = {}
    for commit in newest_commits(path, int(newest[:20]), at_most=_LOOKED_BACK):
        for app, number in commit.transactions.items():
            seen.setdefault(app, number)
    wrong = [app for app, number in seen.items() if said.get(app, number) != number]
    return (newest, f"has another transaction id than the commits for {', '.join(sorted(wrong)[:3])}") if wrong else None


def _said_transactions(checksum: dict[str, Any]) -> Iterator[tuple[str, int]]:
    found = checksum.get("setTransactions")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict) and isinstance(one.get("appId"), str) and isinstance(one.get("version"), int):
            yield one["appId"], one["version"]


def _read_object(system: pa_fs.FileSystem, path: str) -> dict[str, Any]:
    try:
        with system.open_input_stream(path) as stream:
            found = json.loads(stream.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
