"""Reads values out of a commit's JSON, which others write too: what has another type than expected is empty or None."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LONGEST = 1_000_000
"""Characters of metadata that are looked at: what one of our batches says of itself is far shorter."""


def said(metadata: object) -> dict[str, Any]:
    """What `userMetadata` says, where it is a JSON object; others write there what they like, and it is ignored."""
    if not isinstance(metadata, str) or not metadata.lstrip().startswith("{") or len(metadata) > _LONGEST:
        return {}
    try:
        found = json.loads(metadata)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def whole(value: object) -> int | None:
    """A number of a commit, which some writers quote; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:19])
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def text(value: object) -> str:
    """A text of a commit; empty for anything else."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Mapping[str, Any]:
    """An object of a commit; empty for anything else."""
    return value if isinstance(value, dict) else {}
