"""Makes records that no reader may take for an event, each with the one rule that it breaks."""

from __future__ import annotations

from lakehouse.local.event_text import Fields, encode, message
from lakehouse.local.malformed_fields import FIELD_KINDS
from lakehouse.local.malformed_text import TEXT_KINDS
from lakehouse.proof.event_rows import Rows

KINDS = (*TEXT_KINDS, *FIELD_KINDS)
_OVERSIZE = "SLV-001"
_OVERSIZE_EVERY = 200
"""Oversized records are large; so few that they do not drown the rest."""
_OVERSIZE_MOST = 900_000
"""A Kafka record of a megabyte is refused by the broker's default."""


def break_event(rows: Rows, at: int, pick: int, max_event_bytes: int) -> None:
    """Replace the event of row `at` by a broken record; `pick` chooses how."""
    fields = message(rows.event(at))
    if pick % _OVERSIZE_EVERY == 0 and max_event_bytes < _OVERSIZE_MOST:
        kind, rule, value = "malformed_oversize", _OVERSIZE, oversize(fields, max_event_bytes)
    else:
        way = KINDS[pick // _OVERSIZE_EVERY % len(KINDS)]
        kind, rule, value = way.kind, way.rule, way.break_(fields, pick // (_OVERSIZE_EVERY * len(KINDS)))
    rows.kind[at], rows.value[at] = kind, value
    rows.set_rejected(at, "dead_letter", rule)


def oversize(fields: Fields, max_event_bytes: int) -> bytes:
    """Pad a valid event with an unknown field until it is one byte over the limit."""
    bare = len(encode({**fields, "padding": ""}))
    return encode({**fields, "padding": "x" * (max_event_bytes + 1 - bare)})
