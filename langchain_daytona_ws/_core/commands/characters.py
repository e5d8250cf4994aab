"""Decode an output in pieces that end at character boundaries. Pure."""

from __future__ import annotations

import codecs


class Chunks:
    """Decodes the first ``limit_bytes`` of an output piece by piece, without splitting a character.

    Bytes that are not UTF-8 are replaced.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.size_bytes = 0  # bytes accepted so far
        self.is_full = False  # more bytes than the limit have arrived
        self._limit = limit_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def room_bytes(self) -> int:
        """Number of bytes to request next: one more than the limit still allows, to find out whether it is exceeded."""
        return self._limit + 1 - self.size_bytes

    def feed(self, data: bytes) -> str:
        """Accept the next bytes, and return the characters that are complete now."""
        room = self._limit - self.size_bytes
        self.is_full = len(data) > room
        self.size_bytes += min(len(data), room)
        return self._decoder.decode(data[:room])

    def end(self) -> str:
        """End the output. Return a replacement character if its last character is incomplete, otherwise ``""``.

        Always return ``""`` if `is_full`: then only the limit has cut the last character.
        """
        return "" if self.is_full else self._decoder.decode(b"", final=True)


def whole_end(data: bytes) -> bytes:
    """Return the data without an incomplete UTF-8 character at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data if back >= length else data[:-back]
    return data


def whole_start(data: bytes) -> bytes:
    """Return the data without an incomplete UTF-8 character at its start."""
    start = 0
    while start < min(3, len(data)) and 0x80 <= data[start] < 0xC0:
        start += 1
    return data[start:]
