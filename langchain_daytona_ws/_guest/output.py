"""Keep a command's output: in memory the part for the answer, on disk a log of longer output. Both are limited."""

from __future__ import annotations

import posix


class Output:
    """The output of a command.

    Output of up to ``limit_bytes`` bytes is kept whole. Of longer output, the head and the tail are kept, each of half
    this size. Longer output is also written to a log, from its start, up to ``log_limit_bytes`` bytes.
    """

    def __init__(self, limit_bytes: int, log_path: str, log_limit_bytes: int) -> None:
        self.size_bytes = 0
        self.log_path = log_path
        self.log_bytes = 0
        self.log_error = ""
        self._log_limit = log_limit_bytes
        self._half = limit_bytes // 2
        self._limit = limit_bytes
        self._head = bytearray()  # the whole output, until it exceeds the limit
        self._tail = bytearray()
        self._log = -1

    def feed(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        if self._log >= 0 or self.log_error:
            self._write_log(chunk)
        if self.size_bytes <= self._limit:
            self._head += chunk
            return
        if len(self._head) > self._half or not self._tail:
            self._overflow(chunk)
        else:
            self._tail += chunk
        if len(self._tail) > 4 * self._half + 65536:
            del self._tail[: -self._half]

    def _overflow(self, chunk: bytes) -> None:
        """Split the output into head and tail. If no log is open, start one."""
        if self._log < 0:
            self.log_bytes, self.log_error = 0, ""  # if the log of a streamed command has failed, try again
            self.open_log()
            self._write_log(chunk)
        whole = self._head + chunk
        self._head = whole[: self._half]
        self._tail = whole[self._half :]

    def open_log(self) -> None:
        """Start the log with the output so far. If the log cannot be opened, set ``log_error``."""
        try:
            # O_NONBLOCK: a FIFO of this name must not block the call.
            flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_NONBLOCK
            self._log = posix.open(self.log_path, flags, 0o600)
        except OSError as error:
            self.log_error = error.strerror or "cannot be written"
            return
        self._write_log(bytes(self._head))

    def _write_log(self, chunk: bytes) -> None:
        room = self._log_limit - self.log_bytes
        if self._log < 0 or room <= 0:
            return
        view = memoryview(chunk)[:room]
        try:
            while view:
                written = posix.write(self._log, view)
                self.log_bytes += written
                view = view[written:]
        except OSError as error:
            self.log_error = error.strerror or "cannot be written"
            posix.close(self._log)
            self._log = -1

    def close(self) -> None:
        if self._log >= 0:
            posix.close(self._log)
            self._log = -1

    def drop_log(self) -> None:
        """Remove the log of a streamed command, unless the output exceeds the limit of the answer."""
        if self.size_bytes > self._limit:
            return
        self.close()
        self.log_bytes, self.log_error = 0, ""
        try:
            posix.unlink(self.log_path)
        except OSError:
            pass  # the command itself may have removed it

    @property
    def has_log(self) -> bool:
        return self.log_bytes > 0 or self._log >= 0

    def head_and_tail(self) -> tuple[bytes, bytes]:
        """Return head and tail of the output. If the output is within the limit, the head is all of it."""
        if self.size_bytes <= self._limit:
            return bytes(self._head), b""
        return bytes(self._head), bytes(self._tail[-self._half :])

    def drain(self, reader: int) -> None:
        """Read the pipe into the log until all writers have closed the pipe. Discard what exceeds the log's limit."""
        while True:
            chunk = posix.read(reader, 65536)
            if not chunk:
                return
            self._write_log(chunk)
