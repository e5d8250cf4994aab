"""The log of a job: the whole output up to 16 MiB; of a longer output, the first 4 MiB and the latest part.

The log consists of several files. A file's name contains the offset of its first byte in the whole output. So offsets
stay valid when files in the middle are removed.
"""

from __future__ import annotations

import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    Extract = tuple[int, bytes, int]

SEGMENT_BYTES = 4 * 1024 * 1024
# The first file and the latest three files are kept: at most 16 MiB of a job's output.
SEGMENTS_MAX = 4
TRIES = 20


class JobLog:
    """The log as the job's supervisor writes it. ``directory`` is a descriptor of the job's directory."""

    def __init__(self, directory: int) -> None:
        self.size_bytes = 0
        self.failed = False
        self._directory = directory
        self._starts: list[int] = []
        self._file = -1
        self._room = 0

    def feed(self, chunk: bytes) -> None:
        """Append output. Bytes that cannot be written (full disk) are missing in the log, but count in offsets."""
        view = memoryview(chunk)
        try:
            while view:
                if not self._room:
                    self._begin()
                written = os.write(self._file, view[: self._room])
                self._room -= written
                self.size_bytes += written
                view = view[written:]
        except OSError:
            self.failed = True
            self.skip_to(self.size_bytes + len(view))

    def skip_to(self, offset: int) -> None:
        """Continue the log at ``offset``. The output from ``size_bytes`` to ``offset`` is missing in the log."""
        self._close()
        self.size_bytes = offset

    def _begin(self) -> None:
        self._close()
        name = "log.%d" % self.size_bytes
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._file = os.open(name, flags, 0o600, dir_fd=self._directory)
        self._room = SEGMENT_BYTES
        self._starts.append(self.size_bytes)
        if len(self._starts) > SEGMENTS_MAX:
            try:
                os.unlink("log.%d" % self._starts.pop(1), dir_fd=self._directory)
            except FileNotFoundError:
                pass

    def _close(self) -> None:
        self._room = 0
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def save(self) -> None:
        """Flush the latest file to disk, before the job's end is recorded."""
        try:
            if self._file >= 0:
                os.fsync(self._file)
        except OSError:
            self.failed = True


def read(directory: int, offset: int, limit_bytes: int) -> tuple[int, bytes, int]:
    """Return a part of the log: the offset of its first byte, its bytes, and the result of `size`.

    The part begins at the first kept byte that is not before ``offset``, and ends before the next missing byte.
    """
    return _retry(lambda: _read(directory, offset, limit_bytes))


def tail(directory: int, lines: int, limit_bytes: int) -> tuple[int, bytes, int]:
    """Return the last ``lines`` lines, at most ``limit_bytes`` bytes, in the form of `read`."""
    return _retry(lambda: _tail(directory, lines, limit_bytes))


def size(directory: int) -> int:
    """Return the offset after the last byte in the log; this is the size of the whole output if its end was logged."""
    return max([start + length for start, length in _segments(directory)], default=0)


def _retry(attempt: Callable[[], Extract]) -> Extract:
    """Retry if the supervisor removes a file during the read."""
    for _ in range(TRIES):
        try:
            return attempt()
        except FileNotFoundError:
            time.sleep(0.001)
    raise OSError("the log changes faster than it can be read")


def _read(directory: int, offset: int, limit_bytes: int) -> tuple[int, bytes, int]:
    segments = _segments(directory)
    end = max([start + length for start, length in segments], default=0)
    at, data = min(offset, end), b""
    for start, length in segments:
        if start + length <= at or len(data) >= limit_bytes:
            continue
        if start > at and data:
            break
        at_here = max(at, start)
        if not data:
            offset = at_here
        # Read only up to the listed size: the file may have grown since.
        room = min(limit_bytes - len(data), start + length - at_here)
        data += _read_segment(directory, start, at_here - start, room)
        at = offset + len(data)
    return (offset if data else at), data, end


def _tail(directory: int, lines: int, limit_bytes: int) -> tuple[int, bytes, int]:
    segments = _segments(directory)
    end = begin = max([start + length for start, length in segments], default=0)
    for start, length in reversed(segments):
        if start + length < begin:
            break
        begin = start
    offset, data, _ = _read(directory, max(begin, end - limit_bytes), limit_bytes)
    cut = len(data)
    if data.endswith(b"\n"):
        cut -= 1
    for _ in range(lines):
        cut = data.rfind(b"\n", 0, max(cut, 0))
        if cut < 0:
            break
    return offset + cut + 1, data[cut + 1 :], end


def _segments(directory: int) -> list[tuple[int, int]]:
    found = []
    for name in os.listdir(directory):
        head, _, start = name.partition(".")
        if head == "log" and start.isascii() and start.isdigit() and len(start) <= 15:
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((int(start), min(status.st_size, SEGMENT_BYTES)))
    return sorted(found)


def _read_segment(directory: int, start: int, skip: int, limit_bytes: int) -> bytes:
    # Non-blocking: a pipe may have replaced the file.
    file = os.open("log.%d" % start, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return b""
        return os.pread(file, limit_bytes, skip)
    finally:
        os.close(file)
