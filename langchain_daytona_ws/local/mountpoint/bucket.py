"""The bucket as the file system sees it: a few requests, their failures turned into errno."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

# What a request ends with when S3 refuses, cannot be reached, or no credentials can be had.
FAILURES = (ClientError, BotoCoreError, OSError, RuntimeError, ValueError, KeyError)

logger = logging.getLogger("mountpoint")


@dataclass(frozen=True)
class Stored:
    """An object, as S3 tells of it."""

    size: int
    modified: float
    etag: str


def status(error: Exception) -> int:
    """Return the HTTP status of a failed request; 0 when there was no answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


class Bucket:
    """The keys of one bucket below a prefix. Every failure is EIO, and never EACCES, unless said otherwise."""

    def __init__(self, client: Any, name: str, prefix: str) -> None:
        self._client = client
        self._name = name
        self._prefix = prefix

    def head(self, path: str) -> Stored | None:
        try:
            answer = self._client.head_object(Bucket=self._name, Key=self._key(path))
        except FAILURES as error:
            if status(error) == 404:
                return None
            raise failure("HeadObject", path, error) from error
        return Stored(answer["ContentLength"], answer["LastModified"].timestamp(), answer["ETag"])

    def is_folder(self, path: str) -> bool:
        """Say whether any key lies below `path`."""
        prefix = self._key(path) + "/"
        answer = self._call("list_objects_v2", path, Prefix=prefix, Delimiter="/", MaxKeys=1)
        return bool(answer.get("Contents") or answer.get("CommonPrefixes"))

    def names(self, path: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, whether it is a folder) of what lies directly below `path`."""
        prefix = self._key(path) + "/" if path else self._prefix
        more: dict[str, Any] = {}
        while True:
            answer = self._call("list_objects_v2", path, Prefix=prefix, Delimiter="/", **more)
            for one in answer.get("CommonPrefixes", ()):
                yield one["Prefix"][len(prefix) : -1], True
            for one in answer.get("Contents", ()):
                yield one["Key"][len(prefix) :], False
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def read(self, path: str, etag: str, start: int, size: int) -> bytes:
        """Return a range of exactly the object with this ETag; ESTALE when it was replaced."""
        span = f"bytes={start}-{start + size - 1}"
        try:
            answer = self._client.get_object(Bucket=self._name, Key=self._key(path), Range=span, IfMatch=etag)
            with answer["Body"] as body:
                return bytes(body.read())
        except FAILURES as error:
            if status(error) == 412:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from error
            raise failure("GetObject", path, error) from error

    def delete(self, path: str) -> None:
        self._call("delete_object", path, Key=self._key(path))

    def rename(self, old: str, new: str, *, overwrite: bool) -> None:
        """Rename on the server, which only directory buckets can; ENOSYS where the answer is 501.

        Of a store that takes the request for another one, and answers 200, nothing more is asked.
        """
        unless = {} if overwrite else {"DestinationIfNoneMatch": "*"}
        try:
            self._client.rename_object(
                Bucket=self._name, Key=self._key(new), RenameSource=self._key(old), **unless
            )
        except FAILURES as error:
            logger.warning("RenameObject failed for %r: %s", old, error)
            known = {501: errno.ENOSYS, 404: errno.ENOENT, 412: errno.EEXIST}
            code = known.get(status(error), errno.EIO)
            raise OSError(code, os.strerror(code)) from error

    # --- uploads ---

    def put_empty(self, path: str) -> None:
        self._call("put_object", path, Key=self._key(path), Body=b"")

    def begin(self, path: str) -> str:
        return str(self._call("create_multipart_upload", path, Key=self._key(path))["UploadId"])

    def put_part(self, path: str, upload: str, number: int, data: bytes) -> dict[str, Any]:
        answer = self._call(
            "upload_part", path, Key=self._key(path), UploadId=upload, PartNumber=number, Body=data
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def finish(self, path: str, upload: str, parts: list[dict[str, Any]]) -> None:
        wanted = {"Parts": parts}
        self._call(
            "complete_multipart_upload", path, Key=self._key(path), UploadId=upload, MultipartUpload=wanted
        )

    def abort(self, path: str, upload: str) -> None:
        self._call("abort_multipart_upload", path, Key=self._key(path), UploadId=upload)

    # --- inside ---

    def _key(self, path: str) -> str:
        return self._prefix + path

    def _call(self, operation: str, path: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, operation)(Bucket=self._name, **arguments)
        except FAILURES as error:
            raise failure(operation, path, error) from error


def failure(operation: str, path: str, error: Exception) -> OSError:
    """Note what went wrong, which the caller will only know as an I/O error, and return that."""
    logger.warning("%s failed for %r: %s", operation, path, error)
    return OSError(errno.EIO, os.strerror(errno.EIO))
