"""The S3 requests of the file system, with failures as OSError."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

# Errors of a request: S3 refused it, S3 cannot be reached, or there are no credentials.
REQUEST_ERRORS = (ClientError, BotoCoreError, OSError, RuntimeError, ValueError, KeyError)

logger = logging.getLogger("mountpoint")


@dataclass(frozen=True)
class StoredObject:
    size: int
    modified: float
    etag: str


def status(error: Exception) -> int:
    """Return the HTTP status of a failed request; 0 if there was no answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


class Bucket:
    """The keys of a bucket below a prefix.

    Failures are OSErrors with EIO, even for a 403. Exceptions: `head` returns None for a 404; see `read` and `rename`.
    """

    def __init__(self, client: Any, name: str, prefix: str) -> None:
        self._client = client
        self._name = name
        self._prefix = prefix

    def head(self, path: str) -> StoredObject | None:
        try:
            answer = self._client.head_object(Bucket=self._name, Key=self._key(path))
        except REQUEST_ERRORS as error:
            if status(error) == 404:
                return None
            raise failure("HeadObject", path, error) from error
        return StoredObject(answer["ContentLength"], answer["LastModified"].timestamp(), answer["ETag"])

    def is_folder(self, path: str) -> bool:
        """Return True if at least one key is below `path`."""
        prefix = self._key(path) + "/"
        answer = self._call("list_objects_v2", path, Prefix=prefix, Delimiter="/", MaxKeys=1)
        return bool(answer.get("Contents") or answer.get("CommonPrefixes"))

    def entries(self, path: str) -> Iterator[tuple[str, StoredObject | None]]:
        """Yield the name of each entry directly below `path`, with the object as listed; None for a folder."""
        prefix = self._key(path) + "/" if path else self._prefix
        page: dict[str, Any] = {}
        while True:
            answer = self._call("list_objects_v2", path, Prefix=prefix, Delimiter="/", **page)
            for folder in answer.get("CommonPrefixes", ()):
                yield folder["Prefix"][len(prefix) : -1], None
            for item in answer.get("Contents", ()):
                listed = StoredObject(item["Size"], item["LastModified"].timestamp(), item["ETag"])
                yield item["Key"][len(prefix) :], listed
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    def read(self, path: str, etag: str, start: int, size: int) -> bytes:
        """Return a range of the object with this ETag; raise ESTALE if the object was replaced."""
        span = f"bytes={start}-{start + size - 1}"
        try:
            answer = self._client.get_object(Bucket=self._name, Key=self._key(path), Range=span, IfMatch=etag)
            with answer["Body"] as body:
                return bytes(body.read())
        except REQUEST_ERRORS as error:
            if status(error) == 412:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from error
            raise failure("GetObject", path, error) from error

    def delete(self, path: str) -> None:
        self._call("delete_object", path, Key=self._key(path))

    def rename(self, old: str, new: str, *, overwrite: bool) -> None:
        """Rename an object in S3. Only directory buckets support this.

        Raise ENOSYS if S3 returns 501, ENOENT for 404, EEXIST for 412, and EIO for other failures.

        A 200 counts as success, as in the original. Some stores without RenameObject return 200 too, and the file is
        lost.
        """
        condition = {} if overwrite else {"DestinationIfNoneMatch": "*"}
        try:
            self._client.rename_object(
                Bucket=self._name, Key=self._key(new), RenameSource=self._key(old), **condition
            )
        except REQUEST_ERRORS as error:
            logger.warning("RenameObject failed for %r: %s", old, error)
            codes = {501: errno.ENOSYS, 404: errno.ENOENT, 412: errno.EEXIST}
            code = codes.get(status(error), errno.EIO)
            raise OSError(code, os.strerror(code)) from error

    # --- uploads ---

    def put_empty(self, path: str) -> None:
        self._call("put_object", path, Key=self._key(path), Body=b"")

    def start_upload(self, path: str) -> str:
        return str(self._call("create_multipart_upload", path, Key=self._key(path))["UploadId"])

    def put_part(self, path: str, upload: str, number: int, data: bytes) -> dict[str, Any]:
        answer = self._call(
            "upload_part", path, Key=self._key(path), UploadId=upload, PartNumber=number, Body=data
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def complete_upload(self, path: str, upload: str, parts: list[dict[str, Any]]) -> None:
        upload_parts = {"Parts": parts}
        self._call(
            "complete_multipart_upload",
            path,
            Key=self._key(path),
            UploadId=upload,
            MultipartUpload=upload_parts,
        )

    def abort_upload(self, path: str, upload: str) -> None:
        self._call("abort_multipart_upload", path, Key=self._key(path), UploadId=upload)

    # --- internals ---

    def _key(self, path: str) -> str:
        return self._prefix + path

    def _call(self, operation: str, path: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, operation)(Bucket=self._name, **arguments)
        except REQUEST_ERRORS as error:
            raise failure(operation, path, error) from error


def failure(operation: str, path: str, error: Exception) -> OSError:
    """Log the failure, and return the EIO for the caller."""
    logger.warning("%s failed for %r: %s", operation, path, error)
    return OSError(errno.EIO, os.strerror(errno.EIO))
