"""Reads of one object version: ahead of a sequential reader, in requests that grow."""

from __future__ import annotations

import threading
from typing import NamedTuple

from .bucket import Bucket, Stored

FIRST_BYTES = 1152 * 1024
LARGEST_BYTES = 8 * 1024 * 1024


class _Chunk(NamedTuple):
    start: int
    data: bytes

    def holds(self, offset: int) -> bool:
        return self.start <= offset < self.start + len(self.data)


class Reading:
    """An open file. All of it comes from the object that was there when it was opened, or is ESTALE."""

    def __init__(self, bucket: Bucket, path: str, stored: Stored) -> None:
        self._bucket = bucket
        self._path = path
        self.stored = stored
        self.is_idle = False  # closed by somebody, and not read since
        self._lock = threading.Lock()
        # Two, since the kernel's read-ahead asks slightly out of order around the end of a chunk.
        self._chunks: list[_Chunk] = []
        self._next_size = FIRST_BYTES

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
            if chunk.holds(offset):
                return chunk
        last = self._chunks[-1] if self._chunks else None
        sequential = last is not None and offset == last.start + len(last.data)
        size = min(self._next_size * 8, LARGEST_BYTES) if sequential else FIRST_BYTES
        size = min(size, self.stored.size - offset)
        chunk = _Chunk(offset, self._bucket.read(self._path, self.stored.etag, offset, size))
        self._chunks = [*self._chunks[-1:], chunk]
        self._next_size = size
        return chunk
