"""The content of a download, in memory; it is hashed while it arrives."""

from __future__ import annotations

import hashlib
import io


class TooLongError(Exception):
    """A download is longer than its limit."""


class Received:
    """Receives a download of at most ``max_bytes``. A hostile sandbox may send bytes without end."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.restart()

    def restart(self) -> None:
        self._file = io.BytesIO()
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise TooLongError
        self._digest.update(piece)
        self._file.write(piece)

    @property
    def data(self) -> bytes:
        return self._file.getvalue()  # not a copy: BytesIO shares its buffer

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
