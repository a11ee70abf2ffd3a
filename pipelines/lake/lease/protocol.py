"""Defines what a lease's backend does: give the lease to one holder at a time, with a token that grows.

A backend stands for one lease and keeps nothing of its holders in memory: two backends of one lease, in one process or in two,
refuse each other.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, or held it last; `run` tells two runs of one job apart.

    Backends keep these fields as a JSON object. Older versions read it by `Holder(**...)` and see no holder where it has another
    key, so a further fact goes elsewhere.
    """

    job: str
    run: str
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        return f"{self.job} (run {self.run}, pid {self.pid} on {self.host}, since {self.since})"


class AlreadyHeldError(Exception):
    """Raised where somebody else has the lease; `holder` is None where the backend cannot name it."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(f"{holder} holds the lease")
        self.holder = holder


class HeldLease(Protocol):
    """A lease that its owner has until `release`, or until the process ends."""

    @property
    def holder(self) -> Holder:
        """The holder that it was acquired for."""

    @property
    def token(self) -> int:
        """Number of this holder: each new holder of the lease has a greater one than all holders before it."""

    def release(self) -> None:
        """Give the lease back; does nothing where it was given back before."""


class LeaseBackend(Protocol):
    """One lease, wherever it is kept. A lease is free when its holder has died, however it died."""

    @property
    def place(self) -> str:
        """Where the lease is kept, for messages."""

    def acquire(self, holder: Holder, last_token: int | None = None) -> HeldLease:
        """Take the lease, without waiting. Raises AlreadyHeldError where somebody has it.

        A holder that gives the token that it had last keeps it, if nobody has held the lease since. Otherwise the holder is a new
        one, with a new token.
        """

    def look(self) -> Holder | None:
        """Who has the lease now; None where nobody has. Raises UnreadableError where that cannot be seen."""


def acquire_within(backend: LeaseBackend, holder: Holder, seconds: float, last_token: int | None = None) -> HeldLease:
    """Take the lease as soon as it is free; raises AlreadyHeldError where that is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return backend.acquire(holder, last_token)
        except AlreadyHeldError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_SECONDS)
