"""Defines a kind of broken record: the rule that it breaks, and how it is made of an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lakehouse.local.event_text import Fields


@dataclass(frozen=True)
class Malformed:
    """A kind of broken record: its rule and how to break a valid event in one of its ways (`pick`)."""

    kind: str
    rule: str
    break_: Callable[[Fields, int], bytes]
