"""A folder on S3: the objects below a prefix. Credentials, region and endpoint come from boto3's usual chain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipelines.lake.errors import TransientError, UnreadableError, UsageError
from pipelines.lake.storage.protocol import READERS, Abilities, Entry

_CONFIG = Config(
    connect_timeout=2, read_timeout=20, max_pool_connections=READERS, retries={"mode": "standard", "total_max_attempts": 4}
)
_ABSENT = {"NoSuchKey", "404"}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_AGAIN = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "503"}


_ABILITIES = Abilities(locks=False, rights=False, empty_folders=False, checksums=True)


class S3Storage:
    """A prefix in a bucket, as `s3://bucket/prefix` or `s3a://bucket/prefix`."""

    def __init__(self, path: str) -> None:
        uri = re.fullmatch("s3a?://([^/]+)/(.+)", path)
        if uri is None:
            msg = f"The URI {path} names no folder in a bucket; give one such as s3://bucket/checkpoints/bronze/g1."
            raise UsageError(msg)
        self.path = path
        self._bucket, self._prefix = uri[1], f"{uri[2]}/"

    @cached_property
    def _client(self) -> Any:
        return boto3.client("s3", config=_CONFIG)

    @property
    def abilities(self) -> Abilities:
        """What S3 can do."""
        return _ABILITIES

    def files(self, folder: str = "") -> dict[str, Entry]:
        """All objects below `folder`, without those that Hadoop puts there as marks of folders."""
        found = ((found["Key"], found) for page in self._pages(folder) for found in page.get("Contents", []))
        named = ((key.removeprefix(self._prefix), Entry(one["Size"], one["LastModified"])) for key, one in found)
        return dict(sorted((name, entry) for name, entry in named if name and not name.endswith("/")))

    def names(self, folder: str = "") -> list[str]:
        """Names of the objects and of the prefixes in `folder` itself: a request for a thousand of them."""
        within = self._within(folder)
        found = set[str]()
        for page in self._pages(folder, Delimiter="/"):
            keys = [one["Key"] for one in page.get("Contents", [])] + [one["Prefix"] for one in page.get("CommonPrefixes", [])]
            found.update(key.removeprefix(within).rstrip("/") for key in keys)
        return sorted(found - {""})

    def read(self, name: str) -> bytes:
        """Read an object whole."""
        with self._told(name, "read"):
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
            content: bytes = body.read()
            return content

    def create(self, name: str, content: bytes) -> None:
        """Write a new object; the store itself refuses to overwrite one."""
        with self._told(name, "written"):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content, IfNoneMatch="*")

    def replace(self, name: str, content: bytes) -> None:
        """Write an object, over the one that is there."""
        with self._told(name, "written"):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content)

    def delete(self, name: str) -> None:
        """Delete an object."""
        with self._told(name, "deleted"):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def remove(self, folder: str = "") -> None:
        """Delete all objects below `folder`, the marks of folders too; a request for a thousand of them."""
        for page in self._pages(folder):
            keys = [{"Key": found["Key"]} for found in page.get("Contents", [])]
            if keys:
                self._delete_many(folder, keys)

    def _delete_many(self, folder: str, keys: list[dict[str, str]]) -> None:
        with self._told(folder, "deleted"):
            answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
        for refused in answer.get("Errors", []):
            msg = (
                f"{self.path} cannot be deleted (S3 says {refused.get('Code')}); check the rights, then try again "
                "(playbooks/object-store-outage.md)."
            )
            raise UnreadableError(msg)

    def _within(self, folder: str) -> str:
        return self._prefix + (f"{folder}/" if folder else "")

    def _pages(self, folder: str, **more: str) -> Iterator[dict[str, Any]]:
        with self._told(folder, "read"):
            asked = self._client.get_paginator("list_objects_v2")
            yield from asked.paginate(Bucket=self._bucket, Prefix=self._within(folder), **more)

    @contextmanager
    def _told(self, name: str, done: str) -> Iterator[None]:
        what = f"{self.path}/{name}" if name else self.path
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _ABSENT:
                raise FileNotFoundError(what) from None
            if code in _TAKEN:
                raise FileExistsError(what) from None
            if code == "NoSuchBucket":
                msg = f"The bucket {self._bucket} of {what} does not exist; correct the URI or make the bucket."
                raise UsageError(msg) from None
            if code in _AGAIN:
                msg = f"{what} cannot be {done} now (S3 says {code}); try again (playbooks/object-store-outage.md)."
                raise TransientError(msg) from None
            msg = (
                f"{what} cannot be {done} (S3 says {code}); check the credentials, their rights and AWS_ENDPOINT_URL "
                "(playbooks/object-store-outage.md)."
            )
            raise UnreadableError(msg) from None
        except BotoCoreError as error:
            msg = (
                f"{what} cannot be {done} ({type(error).__name__}); check the network, AWS_ENDPOINT_URL and the credentials "
                "(playbooks/object-store-outage.md)."
            )
            raise TransientError(msg) from None
