"""Picks the storage of a path."""

from __future__ import annotations

from pipelines.lake.errors import UsageError
from pipelines.lake.places import local_place, scheme_of
from pipelines.lake.storage.local import LocalStorage
from pipelines.lake.storage.protocol import Storage


def open_storage(path: str) -> Storage:
    """Give the storage at a local path, or at a `file:`, `s3:` or `s3a:` URI; nothing is read yet.

    Raises UsageError where the scheme is another one.
    """
    path = path.rstrip("/") or path
    place = local_place(path)
    if place is not None:
        return LocalStorage(path, place)
    if scheme_of(path) in ("s3", "s3a"):
        from pipelines.lake.storage.s3 import S3Storage  # noqa: PLC0415 - boto3 is slow to import

        return S3Storage(path)
    msg = f"The path {path} has the scheme {scheme_of(path)}, expected a local path, s3:// or s3a://; give one of these."
    raise UsageError(msg)
