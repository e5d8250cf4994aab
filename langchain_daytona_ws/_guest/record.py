"""Keep a record of each call under its idempotency key, so that a call that is sent twice runs once.

A record is a file, which the process that runs the call locks. A second request of the call reads the record. A locked
record means that the call is still running. An unlocked record contains the answer of a call that has ended, or states
that the call was cancelled. If it contains neither, the process died.
"""

from __future__ import annotations

import fcntl
import posix
import time

from langchain_daytona_ws._guest import encode, locks
from langchain_daytona_ws._guest.dirs import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing collections.abc or typing would cost 3 ms a call
    from collections.abc import Callable
    from typing import Any

    Answer = dict[str, Any]

KEEP_S = 24 * 3600
KEEP_BYTES = 256 * 1024 * 1024
KEEP_FILES = 2000
PRUNE_EVERY_S = 60

NEW, STARTED, CANCELLED, DONE = "new", "started", "cancelled", "done"


class Record:
    """The record of one call. With ``keep`` it is never pruned."""

    def __init__(self, state_dir: str, key: str, keep: bool = False) -> None:
        self.path = "%s/%s.%s" % (state_dir, key, "kept" if keep else "call")
        self.log_path = "%s/%s.log" % (state_dir, key)
        self.fd = -1

    def lock(self, wait_until: float) -> bool:
        """Wait for the lock until ``wait_until`` (monotonic clock); return False if another process still holds it."""
        while True:
            if self.fd < 0:
                self.fd = posix.open(self.path, posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW, 0o600)
            # Long pauses between attempts: the lock may be held as long as a command runs.
            wait_s = wait_until - time.monotonic()
            if not locks.lock_within(self.fd, wait_s, longest_pause_s=0.1):
                return False
            if posix.fstat(self.fd).st_nlink:
                return True
            # The record was pruned between open and lock: create it again.
            posix.close(self.fd)
            self.fd = -1

    def read(self) -> tuple[str, bytes]:
        """Return the state and its data: for STARTED the pid of the process that runs the call, for DONE the answer."""
        data = posix.pread(self.fd, posix.fstat(self.fd).st_size, 0)
        state, _, body = data.partition(b"\n")
        if not data:
            return NEW, b""
        # An unreadable record means that the call began: never run the call again.
        return (state.decode() if state in (b"cancelled", b"done") else STARTED), body

    def write(self, state: str, body: bytes = b"") -> None:
        """Overwrite the record in place. No old bytes remain, because the new content is never the shorter one."""
        data = state.encode() + b"\n" + body
        try:
            complete = posix.pwrite(self.fd, data, 0) == len(data)
        except OSError:
            complete = False
        if not complete:
            # The disk is full. The call still runs, since its command may free space. A partial record must not look
            # complete: one byte is read as STARTED. Truncating needs no space on the disk.
            posix.ftruncate(self.fd, 1)

    def forget(self) -> None:
        """Remove the record of a call that did nothing, so that the call can be sent again."""
        posix.unlink(self.path)

    def close(self) -> None:
        if self.fd >= 0:
            posix.close(self.fd)
            self.fd = -1


def run_once(call: Record, wait_s: float, work: Callable[[], Answer], clear: Callable[[], None]) -> Answer:
    """Run ``work`` at most once for all requests of a call, and return its answer.

    A repeated request waits for the end of the call, and returns the recorded answer. Without an answer, ``outcome`` is
    the reason: ``running`` (the call still runs after ``wait_s``), ``cancelled``, or ``unknown`` (the process died, or
    the record is damaged).

    Args:
        call: The record of the call.
        wait_s: Longest wait of a repeated request, in seconds.
        work: Returns the answer. If it raises SetupError, nothing ran, and the call may be sent again.
        clear: Called if the process that ran the call has died; kills the processes that are left.
    """
    if not call.lock(time.monotonic() + wait_s):
        return {"outcome": "running"}
    state, body = call.read()
    if state == DONE:
        return _recorded(body)
    if state == CANCELLED:
        return {"outcome": "cancelled"}
    if state == STARTED:
        # The process that ran the call died without an answer (kill -9, out of memory).
        clear()
        return {"outcome": "unknown"}
    call.write(STARTED, b"%d" % posix.getpid())
    try:
        answer = work()
    except SetupError:
        call.forget()
        raise
    call.write(DONE, encode.encode(answer).encode("ascii"))
    return answer


def _recorded(body: bytes) -> Answer:
    import json  # takes 3 ms; few calls are sent twice

    try:
        return {**json.loads(body), "from_record": True}
    except (ValueError, TypeError, RecursionError):
        # Any process of this user can write to the record. The call began, and must not run again.
        return {"outcome": "unknown"}


def prune(state_dir: str, uploads_dir: str) -> None:
    """Remove old records, logs and programs (by age, number and size) and uploads (by age), at most once a minute."""
    stamp = state_dir + "/tidied"
    now = time.time()
    try:
        if 0 <= now - posix.stat(stamp).st_mtime < PRUNE_EVERY_S:
            return
    except FileNotFoundError:
        pass
    # O_NONBLOCK, here and below: a FIFO in place of the file must not block the call.
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_NONBLOCK
    posix.close(posix.open(stamp, flags, 0o600))
    posix.utime(stamp)
    # Prune each kind separately: logs are large, and must not displace the records that prevent a second run.
    _prune(_entries(state_dir, ".call"), now)
    _prune(_entries(state_dir, ".log"), now)
    _prune(_entries(state_dir, ".program"), now)
    # Prune uploads by age only: a large upload may still be in progress.
    for modified, _, path in _entries(uploads_dir, ""):
        if now - modified > 3600:
            posix.unlink(path)


def _prune(entries: list[tuple[float, int, str]], now: float) -> None:
    total = 0
    for count, (modified, size, path) in enumerate(sorted(entries, reverse=True), 1):
        total += size
        if (now - modified > KEEP_S or total > KEEP_BYTES or count > KEEP_FILES) and not _in_use(path):
            try:
                posix.unlink(path)
            except FileNotFoundError:
                pass  # another call prunes too


def _entries(directory: str, ending: str) -> list[tuple[float, int, str]]:
    found = []
    try:
        for entry in posix.scandir(directory):
            if entry.name.endswith(ending):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, status.st_size, entry.path))
    except FileNotFoundError:
        pass
    return found


def _in_use(path: str) -> bool:
    """Return whether a file is the record of a running call: such a record is locked."""
    if not path.endswith(".call"):
        return False
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        posix.close(fd)
    return False
