"""The content of single objects of a working copy: read into an open file, stored from a file; in parts if large.

`sync_copy` decides which objects are read and stored, and under which conditions.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor

from langchain_daytona_ws._guest.sync_answers import S3Error
from langchain_daytona_ws._guest.sync_s3 import Slice, content_md5
from langchain_daytona_ws._guest.sync_tree import PART_BYTES, part_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from langchain_daytona_ws._guest.sync_answers import ObjectProperties
    from langchain_daytona_ws._guest.sync_s3 import Bucket

PART_WORKERS = 6
SMALL_BYTES = 1024 * 1024
PARTS_ABOVE_BYTES = 64 * 1024 * 1024


class Objects:
    """Reads and stores single objects of a bucket. The parts of large objects are transferred in parallel."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._pool = ThreadPoolExecutor(PART_WORKERS)

    def load(self, key: str, size: int, etag: str, fd: int) -> tuple[ObjectProperties, str]:
        """Read an object into an open, empty file. Return its properties, and the MD5 of its content.

        Args:
            key: The object.
            size: Size of the object, in bytes. An object of more than 64 MiB is read in parts. Then its MD5 is unknown
                (""), and it must keep its ETag until the last part is read.
            etag: Last known ETag of the object.
            fd: The file.
        """
        if size > PARTS_ABOVE_BYTES:
            return self._load_parts(key, size, etag, fd), ""
        digest = hashlib.md5()  # noqa: S324 - S3's ETag is an MD5

        def write(piece: bytes) -> None:
            nonlocal digest
            if not piece:  # the content is sent again from its start
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
                digest = hashlib.md5()  # noqa: S324
            digest.update(piece)
            while piece:
                piece = piece[os.write(fd, piece) :]

        found = self._bucket.get(key, write)
        return found, digest.hexdigest()

    def _load_parts(self, key: str, size: int, etag: str, fd: int) -> ObjectProperties:
        def part(start: int) -> ObjectProperties:
            at = start

            def write(piece: bytes) -> None:
                nonlocal at
                if not piece:
                    at = start
                while piece:
                    count = os.pwrite(fd, piece, at)
                    piece, at = piece[count:], at + count

            return self._bucket.get(key, write, (start, min(start + PART_BYTES, size), etag))

        found = list(self._pool.map(part, range(0, size, PART_BYTES)))
        return found[0]

    def store(
        self, key: str, path: str, status: os.stat_result, condition: dict[str, str]
    ) -> tuple[str, float, str]:
        """Store a file, link or empty directory, with its mode and time.

        Args:
            key: The object.
            path: The file.
            status: The file's status.
            condition: The header ``if-match`` or ``if-none-match`` of the request.

        Returns:
            The object's ETag, the Unix time of its change, and the MD5 of the content; "" for an upload in parts.
        """
        headers = {
            **condition,
            "x-amz-meta-file-permissions": "%07o" % status.st_mode,
            "x-amz-meta-file-mtime": "%dns" % status.st_mtime_ns,
        }
        if not stat.S_ISREG(status.st_mode):
            data = os.fsencode(os.readlink(path)) if stat.S_ISLNK(status.st_mode) else b""
            return self._store_small(key, data, headers)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            size = os.fstat(fd).st_size
            if size <= SMALL_BYTES:
                return self._store_small(key, os.pread(fd, SMALL_BYTES + 1, 0), headers)
            if size > PARTS_ABOVE_BYTES:
                return self._store_parts(key, fd, size, headers, condition)
            body = Slice(fd, 0, size)

            def whole() -> Slice:
                nonlocal body
                body = Slice(fd, 0, size)
                return body

            etag, put_at = self._bucket.put(key, whole, size, headers)
            return etag, put_at, body.digest.hexdigest()
        finally:
            os.close(fd)

    def _store_small(self, key: str, data: bytes, headers: dict[str, str]) -> tuple[str, float, str]:
        headers = {**headers, "content-md5": content_md5(data)}
        etag, put_at = self._bucket.put(key, data, len(data), headers)
        return etag, put_at, hashlib.md5(data).hexdigest()  # noqa: S324

    def _store_parts(
        self, key: str, fd: int, size: int, headers: dict[str, str], condition: dict[str, str]
    ) -> tuple[str, float, str]:
        step = part_bytes(size)
        plain = {name: value for name, value in headers.items() if name not in condition}
        upload = self._bucket.begin_parts(key, plain)

        def part(number: int) -> str:
            start = (number - 1) * step
            length = min(step, size - start)
            return self._bucket.put_part(key, upload, number, lambda: Slice(fd, start, length), length)

        try:
            etags = list(self._pool.map(part, range(1, -(-size // step) + 1)))
            self._check_condition(key, condition)
            etag, put_at = self._bucket.end_parts(key, upload, etags, condition)
        except BaseException:
            try:
                self._bucket.abort_parts(key, upload)
            except S3Error:
                pass  # the first error is reported; a lifecycle rule of the bucket can remove the unfinished upload
            raise
        return etag, put_at, ""

    def _check_condition(self, key: str, condition: dict[str, str]) -> None:
        """Check ``if-match`` by a separate request: some stores ignore it when they complete an upload in parts."""
        etag = condition.get("if-match")
        if etag is not None:
            found = self._bucket.head(key)
            if found is None or found.etag != etag.strip('"'):
                raise S3Error(
                    "missing" if found is None else "changed", "another writer has replaced the object"
                )
