"""Picks the backend of a lease by the path."""

from __future__ import annotations

from pipelines.lake.lease.flock import FlockBackend
from pipelines.lake.lease.protocol import LeaseBackend
from pipelines.lake.places import local_place


def lease_backend(folder: str, name: str) -> LeaseBackend | None:
    """Give the backend of the lease `name` in a folder; None where nothing guards it.

    That is an object store, whose storage has not the ability `locks` (storage/protocol.py).
    """
    place = local_place(folder)
    return None if place is None else FlockBackend(place / name)
