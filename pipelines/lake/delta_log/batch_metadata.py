"""Reads the ledger row that one of our batches wrote into a commit's metadata, and refuses what others wrote there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipelines.lake.ledger_row import COUNTS, BatchRow


def row_in(metadata: Mapping[str, Any], job: str) -> BatchRow | None:
    """The row of a batch of `job`, if the metadata has all that a batch writes, each value of its type; otherwise None."""
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
