"""A file being written: sequentially, into one upload that S3 readers see as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from typing import Any

from .bucket import Bucket

PART_BYTES = 8 * 1024 * 1024
# After the close of an empty file, which returns at once, it takes the original 10 to 60 ms to write the object.
EMPTY_S = 0.06


def same_process(one: int, other: int) -> bool:
    """Say whether two thread ids belong to one process."""
    return one == other or os.path.exists(f"/proc/{one}/task/{other}")


class Writing:
    """A file between its creation, or its opening for overwriting, and the end of its upload."""

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
        self.is_idle = False  # closed by somebody, and not written to since
        self.size = 0
        self.accessed = self.modified = time.time()

    @property
    def opened(self) -> bool:
        return self._opener is not None

    @property
    def over(self) -> bool:
        """Whether the upload is complete or given up, so that the name means again what S3 says."""
        return self._completed or self._errno != 0

    @property
    def failed(self) -> bool:
        return self._errno != 0

    def open(self, pid: int) -> None:
        self._opener = pid

    def write(self, offset: int, data: bytes) -> int:
        with self._lock:
            self._require_open()
            if offset != self.size:
                self._give_up(errno.EINVAL)
            self._buffer += data
            self.size += len(data)
            while len(self._buffer) >= PART_BYTES:
                self._send(PART_BYTES)
            return len(data)

    def flush(self, pid: int) -> None:
        """Complete the upload as close() does: not when nothing was written, nor for another process than the opener.

        Shells and many programs duplicate a descriptor and close the first one before they write, and every
        child closes what it inherited. From then until the next write the file is idle: whoever opens it completes
        the upload, and what is written afterwards through the descriptors that remain is refused.
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
        """Complete the upload after the last descriptor was closed. Nobody learns of errors."""
        if not self.over and not self.size:
            time.sleep(EMPTY_S)
        self.complete()

    def complete(self) -> None:
        """Complete the upload, unless that was done or given up."""
        with self._lock:
            if not self.over:
                self._complete()

    # --- inside ---

    def _require_open(self) -> None:
        if self._completed:
            raise OSError(errno.EIO, "the upload is complete already")
        if self._errno:
            raise OSError(self._errno, "the upload was aborted already")

    def _send(self, size: int) -> None:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        try:
            if self._upload is None:
                self._upload = self._bucket.begin(self._path)
            part = self._bucket.put_part(self._path, self._upload, len(self._parts) + 1, data)
        except OSError:
            self._give_up(errno.EIO)
        else:
            self._parts.append(part)

    def _complete(self) -> None:
        # Always a multi-part upload, as the original's, which can't know the size beforehand.
        if self._buffer:
            self._send(len(self._buffer))
        try:
            if self._upload is None:
                self._bucket.put_empty(self._path)
            else:
                self._bucket.finish(self._path, self._upload, self._parts)
        except OSError:
            self._give_up(errno.EIO)
        self._completed = True

    def _give_up(self, code: int) -> None:
        self._errno = code
        self._buffer.clear()
        if self._upload is not None:
            with contextlib.suppress(OSError):
                self._bucket.abort(self._path, self._upload)
        raise OSError(code, os.strerror(code))
