"""Gives the lease of a layer to one run of a job at a time: the holder alone writes the layer's tables.

A stream and a replay beside it take turns: each holds the lease for one batch. A run that finds that somebody else held it in
between forgets what it remembered of the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.lake.errors import LeaseHeldError, UnreadableError
from pipelines.lake.lease.backends import lease_backend
from pipelines.lake.lease.flock import token_file
from pipelines.lake.lease.protocol import AlreadyHeldError, HeldLease, Holder, LeaseBackend, acquire_within
from pipelines.lake.places import local_place
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import files_in

_FOLDER = "_leases"


@dataclass
class Lease:
    """The right to write a layer's tables; `backend` is None where the lake is on no local file system: nothing guards it."""

    backend: LeaseBackend | None
    holder: Holder
    wait_seconds: float
    _held_before: bool = False
    _is_held: bool = False
    _last_token: int | None = None

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Hold the lease for the block; yields whether somebody else may have written since this run held it last.

        A block inside a block holds it as well. Raises LeaseHeldError, which names the holder, after `wait_seconds`.
        """
        if self._is_held or self.backend is None:
            yield not self._held_before
            self._held_before = True
            return
        held = self._acquire(self.backend)
        self._is_held = True
        try:
            yield held.token != self._last_token
            # Not where the block failed: it may not have come to forget what it remembered.
            self._last_token = held.token
        finally:
            self._is_held = False
            held.release()

    def _acquire(self, backend: LeaseBackend) -> HeldLease:
        try:
            return acquire_within(backend, self.holder, self.wait_seconds, self._last_token)
        except AlreadyHeldError as error:
            msg = (
                f"The lease {backend.place} was not free within {self.wait_seconds:g} s, {error.holder} holds it; "
                "let that one end, or stop it, and try again."
            )
            raise LeaseHeldError(msg) from None


def lease_of(settings: Settings, layer: str, *, job: str, run: str) -> Lease:
    """The lease of a layer (bronze, silver with its dead letters, gold) for one run of a job."""
    backend = lease_backend(settings.lake.root, _name(layer))
    return Lease(backend, Holder(job, run), settings.leases.wait_seconds)


def lease_files(settings: Settings, layer: str) -> list[Path]:
    """Local files that a holder of the layer's lease writes: none where nothing guards it."""
    root = local_place(settings.lake.root)
    if root is None:
        return []
    return [root / _name(layer), token_file(root / _name(layer))]


def leases_held(settings: Settings) -> dict[str, Holder]:
    """Who holds which layer's lease at this moment. Raises UnreadableError where one cannot be looked at."""
    held, unseen = look_at_leases(settings)
    if unseen:
        raise UnreadableError(unseen[0])
    return held


def look_at_leases(settings: Settings) -> tuple[dict[str, Holder], list[str]]:
    """Who holds which layer's lease at this moment, and a sentence for each that could not be looked at: it may be held."""
    root = local_place(settings.lake.root)
    held, unseen = dict[str, Holder](), []
    try:
        paths = files_in(root / _FOLDER, "*.json") if root is not None else []
    except UnreadableError as error:
        return {}, [str(error)]
    for path in paths:
        try:
            backend = lease_backend(settings.lake.root, _name(path.stem))
            holder = None if backend is None else backend.look()
        except UnreadableError as error:
            unseen.append(str(error))
            continue
        if holder is not None:
            held[path.stem] = holder
    return held, unseen


def _name(layer: str) -> str:
    return f"{_FOLDER}/{layer}.json"
