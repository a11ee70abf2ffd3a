"""Describes what an error was taken for: its kind, its name, its reason and its playbook."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipelines.lake.causes.reasons import LOST_WORKER


class Kind(StrEnum):
    """What can be done about an error."""

    TRANSIENT = "transient"
    """The same work may succeed later: retry with backoff."""
    PERMANENT = "permanent"
    """The same work fails again until somebody acts: stop."""
    DATA = "data"
    """Permanent, and one of the records looks like the cause: look for it."""
    HELD = "held"
    """The circuit breaker is open: wait, it is no failure."""
    UNKNOWN = "unknown"
    """Nobody has foreseen it: retry, since the work is idempotent, but not for ever, and save its trace."""


@dataclass(frozen=True)
class Cause:
    """What an error was taken for; `name` is a class, condition or errno, never a message, which may hold payload values."""

    kind: Kind
    name: str
    reason: str
    playbook: str
    """Path of the page that leads out; empty where an error's own sentence does."""

    @property
    def suspects_data(self) -> bool:
        """Whether a record may be behind it: surely not where the outside world is known to have failed."""
        return self.kind in (Kind.DATA, Kind.UNKNOWN) or self.reason == LOST_WORKER
