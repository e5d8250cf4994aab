"""A job's log: all that it printed while that is short, and then its beginning and its end.

The log is cut into files that are named by the offset at which they begin, so that what is left out in the middle
changes no offset of the rest.
"""

from __future__ import annotations

import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    Found = tuple[int, bytes, int]

SEGMENT_BYTES = 4 * 1024 * 1024
# The first, and the latest three: at most 16 MiB of a job's output are on the disk.
SEGMENTS_MAX = 4
TRIES = 20


class JobLog:
    """The log that a supervisor writes.

    Args:
        directory: Descriptor of the job's directory.
    """

    def __init__(self, directory: int) -> None:
        self.size_bytes = 0
        self.failed = False
        self._directory = directory
        self._starts: list[int] = []
        self._file = -1
        self._room = 0

    def feed(self, chunk: bytes) -> None:
        """Append; what the disk does not take is left out, and offsets go on as if it had been written."""
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
        """Leave out what comes before the offset."""
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
        """Have the latest part on the disk before the end of the job is recorded there."""
        try:
            if self._file >= 0:
                os.fsync(self._file)
        except OSError:
            self.failed = True


def read(directory: int, offset: int, limit_bytes: int) -> tuple[int, bytes, int]:
    """Return where the first kept byte at or after the offset is, what follows without a gap, and the log's size."""
    return _steadily(lambda: _read(directory, offset, limit_bytes))


def tail(directory: int, lines: int, limit_bytes: int) -> tuple[int, bytes, int]:
    """Return the last lines as `read` does, at most the limit of bytes of them."""
    return _steadily(lambda: _tail(directory, lines, limit_bytes))


def size(directory: int) -> int:
    """Return how much was printed, as far as the log tells."""
    return max([start + length for start, length in _segments(directory)], default=0)


def _steadily(look: Callable[[], Found]) -> Found:
    """Look again when the supervisor removed a file that was about to be read."""
    for _ in range(TRIES):
        try:
            return look()
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
        # No more of it than there was: the rest has come since the size was looked at.
        room = min(limit_bytes - len(data), start + length - at_here)
        data += _part(directory, start, at_here - start, room)
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
                about = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(about.st_mode):
                found.append((int(start), min(about.st_size, SEGMENT_BYTES)))
    return sorted(found)


def _part(directory: int, start: int, skip: int, limit_bytes: int) -> bytes:
    # Not blocking: in this place there may be a pipe by now.
    file = os.open("log.%d" % start, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return b""
        return os.pread(file, limit_bytes, skip)
    finally:
        os.close(file)
