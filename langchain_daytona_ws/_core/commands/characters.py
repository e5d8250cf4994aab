"""Bytes cut into texts of whole characters. Pure."""

from __future__ import annotations

import codecs


class Chunks:
    """Cut an output into texts of whole characters, up to a limit.

    The texts together are what all of the bytes decode to at once, bytes that are no UTF-8 replaced.

    Args:
        limit_bytes: How many bytes to take.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.size_bytes = 0  # how many were taken
        self.is_full = False  # there was more than the limit
        self._limit = limit_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def room_bytes(self) -> int:
        """How many bytes would fill it: one more than it takes."""
        return self._limit + 1 - self.size_bytes

    def feed(self, data: bytes) -> str:
        """Take what follows, and return the text that it completes."""
        room = self._limit - self.size_bytes
        self.is_full = len(data) > room
        self.size_bytes += min(len(data), room)
        return self._decoder.decode(data[:room])

    def end(self) -> str:
        """Return what stands for a character whose rest never came."""
        return "" if self.is_full else self._decoder.decode(b"", final=True)


def whole_end(data: bytes) -> bytes:
    """Drop the beginning of a UTF-8 character whose rest was cut off."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data if back >= length else data[:-back]
    return data


def whole_start(data: bytes) -> bytes:
    """Drop the rest of a UTF-8 character whose beginning was cut off."""
    start = 0
    while start < min(3, len(data)) and 0x80 <= data[start] < 0xC0:
        start += 1
    return data[start:]
