"""Reads a version of an object; for sequential readers with read-ahead, in growing requests."""

from __future__ import annotations

import threading
from typing import NamedTuple

from .bucket import Bucket, StoredObject

FIRST_CHUNK_BYTES = 1152 * 1024
MAX_CHUNK_BYTES = 8 * 1024 * 1024


class _Chunk(NamedTuple):
    start: int
    data: bytes

    def contains(self, offset: int) -> bool:
        return self.start <= offset < self.start + len(self.data)


class Reader:
    """A file open for reading. If the object is replaced after the opening, reads fail with ESTALE."""

    def __init__(self, bucket: Bucket, path: str, stored: StoredObject) -> None:
        self._bucket = bucket
        self._path = path
        self.stored = stored
        self.is_idle = False  # True after a close, until the next read
        self._lock = threading.Lock()
        # Two, because the kernel's read-ahead is slightly out of order at the end of a chunk.
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
