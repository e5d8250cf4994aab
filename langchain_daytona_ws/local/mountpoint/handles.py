"""Open files.

A reader reads one version of an object; a sequential reader reads ahead, in growing requests. A writer writes
sequentially, as one upload: in S3 the object appears when the upload is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from typing import Any, NamedTuple

from .bucket import Bucket, StoredObject

FIRST_CHUNK_BYTES = 1152 * 1024
MAX_CHUNK_BYTES = 8 * 1024 * 1024
PART_BYTES = 8 * 1024 * 1024
# close() of an empty file returns at once. The original writes the object 10 to 60 ms later (measured).
EMPTY_WRITE_S = 0.06


class _Chunk(NamedTuple):
    start: int
    data: bytes

    def contains(self, offset: int) -> bool:
        return self.start <= offset < self.start + len(self.data)


class Reader:
    """A file open for reading.

    If the object is replaced after the opening, requests for more data fail with ESTALE.
    """

    def __init__(self, bucket: Bucket, path: str, stored: StoredObject) -> None:
        self._bucket = bucket
        self._path = path
        self.stored = stored
        self.is_idle = False  # True after a close, until the next read
        self._lock = threading.Lock()
        # The last two chunks, because the kernel's read-ahead is slightly out of order at the end of a chunk.
        self._chunks: list[_Chunk] = []
        self._next_size = FIRST_CHUNK_BYTES

    def read(self, offset: int, size: int) -> bytes:
        pieces = []
        with self._lock:
            while size > 0 and offset < self.stored.size:
                chunk = self._chunk(offset)
                piece = chunk.data[offset - chunk.start : offset - chunk.start + size]
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def _chunk(self, offset: int) -> _Chunk:
        for chunk in self._chunks:
            if chunk.contains(offset):
                return chunk
        last = self._chunks[-1] if self._chunks else None
        sequential = last is not None and offset == last.start + len(last.data)
        size = min(self._next_size * 8, MAX_CHUNK_BYTES) if sequential else FIRST_CHUNK_BYTES
        size = min(size, self.stored.size - offset)
        chunk = _Chunk(offset, self._bucket.read(self._path, self.stored.etag, offset, size))
        self._chunks = [*self._chunks[-1:], chunk]
        self._next_size = size
        return chunk


def same_process(first: int, second: int) -> bool:
    """Return True if both thread ids belong to one process."""
    return first == second or os.path.exists(f"/proc/{first}/task/{second}")


class Writer:
    """A new or overwritten file, until its upload ends."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        self._bucket = bucket
        self._path = path
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._upload: str | None = None
        self._parts: list[dict[str, Any]] = []
        self._opener: int | None = None
        self._errno = 0
        self._completed = False
        self.is_idle = False  # True after a close, until the next write
        self.size = 0
        self.accessed = self.modified = time.time()

    @property
    def was_opened(self) -> bool:
        return self._opener is not None

    @property
    def is_finished(self) -> bool:
        """True if the upload is complete or aborted: S3 then defines the file."""
        return self._completed or self._errno != 0

    @property
    def has_failed(self) -> bool:
        return self._errno != 0

    def open(self, pid: int) -> None:
        self._opener = pid

    def write(self, offset: int, data: bytes) -> int:
        with self._lock:
            self._require_open()
            if offset != self.size:
                self._abort(errno.EINVAL)
            self._buffer += data
            self.size += len(data)
            while len(self._buffer) >= PART_BYTES:
                self._send_part(PART_BYTES)
            return len(data)

    def flush(self, pid: int) -> None:
        """Complete the upload on close(), if data was written and `pid` belongs to the process that opened the file.

        Other closes are frequent: many programs duplicate a descriptor and close the first one before they write, and
        each child closes its inherited descriptors. They complete no upload. From any close to the next write, the
        file is idle. Opening an idle file completes its upload, and then writes through the old descriptors are
        refused.
        """
        with self._lock:
            if self._completed:
                return
            self._require_open()
            if self.size and same_process(self._opener or 0, pid):
                self._complete()
            self.is_idle = True

    def sync(self) -> None:
        with self._lock:
            if not self._completed:
                self._require_open()
                self._complete()

    def release(self) -> None:
        """Complete the upload after the last descriptor is closed. Errors cannot be reported to a process."""
        if not self.is_finished and not self.size:
            time.sleep(EMPTY_WRITE_S)
        self.complete()

    def complete(self) -> None:
        with self._lock:
            if not self.is_finished:
                self._complete()

    # --- internals ---

    def _require_open(self) -> None:
        if self._completed:
            raise OSError(errno.EIO, "the upload is complete already")
        if self._errno:
            raise OSError(self._errno, "the upload was aborted already")

    def _send_part(self, size: int) -> None:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        try:
            if self._upload is None:
                self._upload = self._bucket.start_upload(self._path)
            part = self._bucket.put_part(self._path, self._upload, len(self._parts) + 1, data)
        except OSError:
            self._abort(errno.EIO)
        else:
            self._parts.append(part)

    def _complete(self) -> None:
        # Small files are multipart uploads too, as in the original, which does not know the size in advance. Only an
        # empty file is written by PutObject.
        if self._buffer:
            self._send_part(len(self._buffer))
        try:
            if self._upload is None:
                self._bucket.put_empty(self._path)
            else:
                self._bucket.complete_upload(self._path, self._upload, self._parts)
        except OSError:
            self._abort(errno.EIO)
        self._completed = True

    def _abort(self, code: int) -> None:
        self._errno = code
        self._buffer.clear()
        if self._upload is not None:
            with contextlib.suppress(OSError):
                self._bucket.abort_upload(self._path, self._upload)
        raise OSError(code, os.strerror(code))
