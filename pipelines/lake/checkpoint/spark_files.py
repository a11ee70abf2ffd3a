"""The files that Spark keeps in a checkpoint, decoded; each problem is a ValueError with half a sentence.

Formats (Spark 4.2): `offsets/<batch>` is `v1`, a line of JSON about the batch, and a line for each source; `commits/<batch>`
is `v1` and a line of JSON; `sources/0/0` of Kafka is a zero byte, `v1` and the offsets that batch 0 begins with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_VERSION = "v1"


@dataclass(frozen=True)
class KafkaPosition:
    """The next offset of each partition of a topic."""

    topic: str
    offsets: dict[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"topic": self.topic, "offsets": {str(partition): offset for partition, offset in self.offsets.items()}}


@dataclass(frozen=True)
class DeltaPosition:
    """How far a Delta table has been read: up to file `index` of `version` (below 0: none of it).

    `is_snapshot`: of the table as it stood at `version`, not of that one commit.
    """

    table_id: str
    version: int
    index: int
    is_snapshot: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"table_id": self.table_id, "version": self.version, "index": self.index, "is_snapshot": self.is_snapshot}


Position = KafkaPosition | DeltaPosition


@dataclass(frozen=True)
class Planned:
    """A batch as Spark planned it: where it ends, and when that was decided."""

    end: Position
    planned_at: datetime


def read_planned(content: bytes) -> Planned:
    """Decode `offsets/<batch>`."""
    lines = _lines(content)
    if len(lines) < 3:
        msg = "is cut: the offsets are missing"
        raise ValueError(msg)
    if len(lines) > 3:
        msg = f"has the offsets of {len(lines) - 2} sources, expected one"
        raise ValueError(msg)
    planned_ms = _object(lines[1], "line 2").get("batchTimestampMs")
    if not isinstance(planned_ms, int):
        msg = "is damaged: line 2 does not say when the batch was planned"
        raise ValueError(msg)
    return Planned(_position(_object(lines[2], "line 3")), datetime.fromtimestamp(planned_ms / 1000, UTC))


def read_initial(content: bytes) -> Position:
    """Decode `sources/0/0`."""
    lines = _lines(content.removeprefix(b"\0"))
    if len(lines) != 2:
        msg = "is cut: the offsets are missing"
        raise ValueError(msg)
    return _position(_object(lines[1], "line 2"))


def check_commit(content: bytes) -> None:
    """Decode `commits/<batch>`: what it says is of no use here, that it can be read is."""
    lines = _lines(content)
    if len(lines) != 2:
        msg = "is cut: its second line is missing"
        raise ValueError(msg)
    _object(lines[1], "line 2")


def read_query_id(content: bytes) -> str:
    """Decode `metadata`."""
    found = _object(content.decode(errors="replace"), "the file").get("id")
    if not isinstance(found, str):
        msg = "has no query id"
        raise ValueError(msg)
    return found


def write_query_id(query_id: str) -> bytes:
    """Encode `metadata`."""
    return json.dumps({"id": query_id}, separators=(",", ":")).encode()


def _lines(content: bytes) -> list[str]:
    if not content.strip(b"\0 \n"):
        msg = "is empty"
        raise ValueError(msg)
    lines = content.decode(errors="replace").strip("\n").split("\n")
    if lines[0] != _VERSION:
        msg = f"has format {lines[0][:20]!r}, expected {_VERSION}"
        raise ValueError(msg)
    return lines


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        tree = json.loads(line)
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        msg = f"is cut or damaged: {where} is no JSON object"
        raise ValueError(msg)
    return tree


def _position(tree: dict[str, Any]) -> Position:
    try:
        if "reservoirId" in tree:
            return DeltaPosition(
                str(tree["reservoirId"]), int(tree["reservoirVersion"]), int(tree["index"]), bool(tree["isStartingVersion"])
            )
        ((topic, offsets),) = tree.items()
        return KafkaPosition(topic, {int(partition): int(offset) for partition, offset in sorted(offsets.items(), key=_number)})
    except (KeyError, TypeError, ValueError, AttributeError):
        msg = "is damaged: its last line holds neither Kafka's offsets nor a version of a Delta table"
        raise ValueError(msg) from None


def _number(item: tuple[str, Any]) -> int:
    return int(item[0])
