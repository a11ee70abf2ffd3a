"""Reads the commits of a Delta table from its log, newest first, without a JVM, and judges which of them are the project's own.

Others commit too, with whatever metadata they like: free text, JSON of any shape, even our keys with other types. So no reader of
commits parses `userMetadata` itself: `said` gives what is an object, `batch_row` and `note` what one of our writers wrote. The
log's files are read as they lie, since deltalake's history of a table fails at one commit whose metadata it does not expect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deltalake import CommitProperties

from pipelines.lake.ledger_row import COUNTS, BatchRow
from pipelines.lake.storage.arrow_storage import open_folder

MARK = "lakehouse"
"""Key under which a writer of ours names itself in a commit that carries neither a batch nor a transaction id of ours."""
APP_IDS = "lakehouse-"
"""How transaction ids of ours begin (see checkpoints.py)."""
_LONGEST = 1_000_000
"""Characters of metadata that are looked at: what one of our batches says of itself is far shorter."""


@dataclass(frozen=True)
class Commit:
    """A commit as its file in the log has it; what is missing there, or of another type than Delta writes, is empty here.

    `transactions`: app id -> version. `appends`, `removes`: data files with dataChange. `configuration`: the table's properties
    where the commit changes its metadata. `info`: all that the commit says of itself.
    """

    version: int
    info: Mapping[str, Any] = field(default_factory=dict)
    transactions: Mapping[str, int] = field(default_factory=dict)
    appends: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """Files of change data."""
    added_rows: int | None = 0
    removed_rows: int | None = 0
    configuration: Mapping[str, str] | None = None

    @property
    def operation(self) -> str:
        """Name of the operation, such as `WRITE`; empty where the commit does not say."""
        return _text(self.info.get("operation"))

    @property
    def changes_rows(self) -> bool:
        """Whether rows were added, changed or removed: not by OPTIMIZE, VACUUM, or a change of properties."""
        return bool(self.appends or self.removes or self.changes)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameters of the operation."""
        return _mapping(self.info.get("operationParameters"))

    @property
    def at(self) -> datetime | None:
        """When it was made, by the clock of who made it."""
        stamp = self.info.get("timestamp")
        if not isinstance(stamp, int | float):
            return None
        try:
            return datetime.fromtimestamp(stamp / 1000, UTC)
        except (OverflowError, OSError, ValueError):
            return None

    @property
    def said(self) -> dict[str, Any]:
        """The commit's `userMetadata` as an object; empty where it is anything else."""
        return said(self.info.get("userMetadata"))

    @property
    def writer(self) -> str:
        """What wrote it, as it says: the engine, and the client's version."""
        return _text(self.info.get("engineInfo")) or _text(self.info.get("clientVersion")) or "unknown"

    @property
    def restored_to(self) -> int | None:
        """Version that a RESTORE went back to; None where it is no RESTORE, or does not say."""
        if self.operation != "RESTORE":
            return None
        return _whole(self.parameters.get("version"))

    def metric(self, key: str) -> int | None:
        """A number that the commit says of itself; None where it does not."""
        return _whole(_mapping(self.info.get("operationMetrics")).get(key))

    @property
    def is_marked(self) -> bool:
        """Whether a writer of the project left its mark: a transaction id, what a batch or command says, or its name."""
        if any(app.startswith(APP_IDS) for app in self.transactions):
            return True
        if isinstance(self.info.get(MARK), str) or isinstance(self.said.get(MARK), str):
            return True
        is_batch = any(self.batch_row(job) is not None for job in ("silver", "gold"))
        return is_batch or any(self.note(key) for key in ("rollback", "rebuild"))

    def note(self, key: str) -> dict[str, Any]:
        """What a command of ours wrote below `key` (`rollback`, `rebuild`); empty where it did not."""
        found = self.said.get(key)
        return found if isinstance(found, dict) else {}

    def batch_row(self, job: str) -> BatchRow | None:
        """The ledger row of the batch of `job` that made this commit; None where it is somebody else's.

        Ours it is if the metadata has all that a batch writes, each of its type, and the commit itself agrees: a MERGE changes
        rows, an append carries the batch's transaction id. A copy of our metadata in an OPTIMIZE is none of ours.
        """
        if self.operation not in ("WRITE", "MERGE"):
            return None
        row = _row(self.said, job)
        if row is None or self.operation == "MERGE":
            return row if self.changes_rows else None
        own = any(app.endswith(row.generation) and number == row.batch_id for app, number in self.transactions.items())
        return row if own else None


def marked(writer: str) -> CommitProperties:
    """The mark of a commit that `writer`, a part of this project, makes by deltalake."""
    return CommitProperties(custom_metadata={"userMetadata": json.dumps({MARK: writer})})


def said(metadata: object) -> dict[str, Any]:
    """What `userMetadata` says, where it is a JSON object; others write there what they like, and it is ignored."""
    if not isinstance(metadata, str) or not metadata.lstrip().startswith("{") or len(metadata) > _LONGEST:
        return {}
    try:
        found = json.loads(metadata)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


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
        try:
            with system.open_input_stream(f"{root}/_delta_log/{number:020d}.json") as stream:
                content = stream.read()
        except FileNotFoundError:
            return
        text = content.decode("utf-8", errors="replace")
        if not skip(number, text):
            yield _parse(number, text)


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
            if isinstance(done.get("appId"), str) and (number := _whole(done.get("version"))) is not None:
                transactions[done["appId"]] = number
        elif isinstance(metadata := action.get("metaData"), dict):
            configuration = {str(key): str(value) for key, value in _mapping(metadata.get("configuration")).items()}
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
    )


def _action(line: str) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(line)) if line.strip() else {}
    except (ValueError, RecursionError):
        return {}


def _rows(files: list[Mapping[str, Any]]) -> int | None:
    """Rows of data files by their statistics; None where one has none."""
    total = 0
    for one in files:
        stats = said(one.get("stats"))
        rows = _whole(stats.get("numRecords"))
        if rows is None:
            return None
        total += rows
    return total


def _row(metadata: Mapping[str, Any], job: str) -> BatchRow | None:
    generation, batch_id = metadata.get("generation"), metadata.get("batch_id")
    offsets, holes, versions = metadata.get("offsets"), metadata.get("holes", {}), metadata.get("versions", {})
    if metadata.get("job") != job or not isinstance(generation, str) or not generation or not _is_count(batch_id):
        return None
    if any(not _is_count(metadata.get(name, 0)) for name in COUNTS):
        return None
    if not _is_ranges(offsets) or not isinstance(holes, dict) or not isinstance(versions, dict):
        return None
    spans_are_well = all(isinstance(spans, list) and all(map(_is_span, spans)) for spans in holes.values())
    if not spans_are_well or not all(_is_count(version) for version in versions.values()):
        return None
    try:
        started = datetime.fromisoformat(str(metadata.get("started_at")))
    except ValueError:
        return None
    return BatchRow.from_metadata(metadata) if started.tzinfo is not None else None


def _is_ranges(offsets: object) -> bool:
    if not isinstance(offsets, dict):
        return False
    return all((name.isdecimal() or name == "silver_version") and _is_span(span) for name, span in offsets.items())


def _is_span(span: object) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(map(_is_count, span))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _whole(value: object) -> int | None:
    """A number of a commit, which some writers quote; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:19])
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
