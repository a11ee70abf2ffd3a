"""A folder on S3: objects below a prefix. Credentials, region and endpoint come from boto3's usual chain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lakehouse.checkpoints.folder import READERS, Entry
from pipelines.lake.errors import TransientError, UnreadableError, UsageError

_CONFIG = Config(
    connect_timeout=2, read_timeout=20, max_pool_connections=READERS, retries={"mode": "standard", "total_max_attempts": 4}
)
_ABSENT = {"NoSuchKey", "404"}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_AGAIN = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "503"}


class S3Folder:
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

    def files(self) -> dict[str, Entry]:
        """All objects below the prefix, without those that Hadoop puts there as marks of folders."""
        return dict(sorted((name, entry) for name, entry in self._objects() if name and not name.endswith("/")))

    def is_empty(self) -> bool:
        """Tell whether no object lies here but the mark of the folder itself."""
        return all(not name for name, _ in self._objects())

    def read(self, name: str) -> bytes:
        """Read an object whole."""
        with self._told(f"{self.path}/{name}", "read"):
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
            content: bytes = body.read()
            return content

    def write_new(self, name: str, content: bytes) -> None:
        """Write a new object; the store itself refuses to overwrite one."""
        with self._told(f"{self.path}/{name}", "written"):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content, IfNoneMatch="*")

    def delete(self, name: str) -> None:
        """Delete an object."""
        with self._told(f"{self.path}/{name}", "deleted"):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def _objects(self) -> Iterator[tuple[str, Entry]]:
        with self._told(self.path, "read"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for found in page.get("Contents", []):
                    yield found["Key"].removeprefix(self._prefix), Entry(found["Size"], found["LastModified"])

    @contextmanager
    def _told(self, what: str, done: str) -> Iterator[None]:
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
