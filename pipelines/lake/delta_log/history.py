"""Reads the commits of a Delta table from its log, newest first, without a JVM.

It reads the log's files as they lie, since deltalake's history of a table fails at one commit whose metadata it does not expect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

from pyarrow.fs import FileSystem

from pipelines.lake.delta_log.commit import Commit
from pipelines.lake.delta_log.commit_values import mapping, said, whole
from pipelines.lake.storage.arrow_storage import open_folder


def newest_commits(
    path: str,
    version: int,
    *,
    after: int = -1,
    at_most: int | None = None,
    skip: Callable[[int, str], bool] = lambda _version, _content: False,
) -> Iterator[Commit]:
    """The commits of the table at `path` from `version` down to the one after `after`, at most so many.

    Ends where the log has no file of a version any more. A file that is cut gives the commit with what can be read of it. `skip`
    sees each version and its file as a text, and says which need not be parsed and given.
    """
    system, root = open_folder(path)
    last = after if at_most is None else max(after, version - at_most)
    for number in range(version, last, -1):
        text = _read(system, root, number)
        if text is None:
            return
        if not skip(number, text):
            yield _parse(number, text)


def commits_after(path: str, version: int) -> Iterator[Commit]:
    """The commits of the table at `path` after `version`, the oldest first; ends where the log has no file of a version."""
    system, root = open_folder(path)
    for number in count(version + 1):
        text = _read(system, root, number)
        if text is None:
            return
        yield _parse(number, text)


def _read(system: FileSystem, root: str, version: int) -> str | None:
    try:
        with system.open_input_stream(f"{root}/_delta_log/{version:020d}.json") as stream:
            content: bytes = stream.read()
    except FileNotFoundError:
        return None
    return content.decode("utf-8", errors="replace")


def _parse(version: int, content: str) -> Commit:
    info: Mapping[str, Any] = {}
    transactions: dict[str, int] = {}
    files: dict[str, list[Mapping[str, Any]]] = {"add": [], "remove": [], "cdc": []}
    configuration: Mapping[str, str] | None = None
    for line in content.splitlines():
        action = _action(line)
        if isinstance(action.get("commitInfo"), dict):
            info = action["commitInfo"]
        elif isinstance(done := action.get("txn"), dict):
            if isinstance(done.get("appId"), str) and (number := whole(done.get("version"))) is not None:
                transactions[done["appId"]] = number
        elif isinstance(metadata := action.get("metaData"), dict):
            configuration = {str(key): str(value) for key, value in mapping(metadata.get("configuration")).items()}
        for kind, found in files.items():
            one = action.get(kind)
            if isinstance(one, dict) and isinstance(one.get("path"), str) and (kind == "cdc" or one.get("dataChange")):
                found.append(one)
    paths = {kind: tuple(one["path"] for one in found) for kind, found in files.items()}
    return Commit(
        version,
        info,
        transactions,
        paths["add"],
        paths["remove"],
        paths["cdc"],
        _rows(files["add"]),
        _rows(files["remove"]),
        configuration,
        _bytes(files["cdc"] or [*files["add"], *files["remove"]]),
    )


def _action(line: str) -> Mapping[str, Any]:
    try:
        return mapping(json.loads(line)) if line.strip() else {}
    except (ValueError, RecursionError):
        return {}


def _bytes(files: list[Mapping[str, Any]]) -> int:
    return sum(whole(one.get("size")) or 0 for one in files)


def _rows(files: list[Mapping[str, Any]]) -> int | None:
    """Rows of data files by their statistics; None where one has none."""
    total = 0
    for one in files:
        stats = said(one.get("stats"))
        rows = whole(stats.get("numRecords"))
        if rows is None:
            return None
        total += rows
    return total
