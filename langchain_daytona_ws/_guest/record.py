"""The once-only marker of a call: whether it was begun, and what came of it.

One file per call. Its advisory lock is held by the process that runs the command, so a second request for
the same call can tell "running" (locked) from "finished" (a result) from "died half-way" (neither).
"""

from __future__ import annotations

import fcntl
import os
import time

from langchain_daytona_ws._guest.place import PlaceError

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing collections.abc or typing would cost 3 ms a call
    from collections.abc import Callable

KEEP_S = 24 * 3600
KEEP_BYTES = 256 * 1024 * 1024
KEEP_FILES = 2000
TIDY_EVERY_S = 60

NEW, STARTED, CANCELLED, DONE = "new", "started", "cancelled", "done"


class Record:
    """The record of one call, open and perhaps locked by this process; one to keep is never tidied away."""

    def __init__(self, state_dir: str, key: str, keep: bool = False) -> None:
        self.path = "%s/%s.%s" % (state_dir, key, "kept" if keep else "call")
        self.log_path = "%s/%s.log" % (state_dir, key)
        self.fd = -1

    def lock(self, wait_until: float) -> bool:
        """Take the lock, waiting until the monotonic time given; return whether it was had."""
        pause = 0.005
        while True:
            if self.fd < 0:
                self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= wait_until:
                    return False
                time.sleep(pause)
                pause = min(pause * 1.5, 0.1)
                continue
            if os.fstat(self.fd).st_nlink:
                return True
            # Expired and removed between our open and our lock.
            os.close(self.fd)
            self.fd = -1

    def read(self) -> tuple[str, bytes]:
        """Return the state and what was written with it (the runner's pid, or the result)."""
        data = os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        state, _, body = data.partition(b"\n")
        if not data:
            return NEW, b""
        # Anything unreadable means that something was begun: never run it again.
        return (state.decode() if state in (b"cancelled", b"done") else STARTED), body

    def write(self, state: str, body: bytes = b"") -> None:
        """Replace the state, without a moment at which the record is empty (each state is longer)."""
        data = state.encode() + b"\n" + body
        try:
            whole = os.pwrite(self.fd, data, 0) == len(data)
        except OSError:
            whole = False
        if not whole:
            # A full disk must not stop the command that would free it, and half a record must not be taken for a
            # whole one. A size needs no block on the disk.
            os.ftruncate(self.fd, 1)

    def forget(self) -> None:
        """Remove the record of a call that did nothing, so that it may be sent again."""
        os.unlink(self.path)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def once(call: Record, wait_s: float, work: Callable[[], str], clear: Callable[[], None]) -> str:
    """Return the answer of ``work``, which is done at most once however often the call is sent.

    A second sender waits for the first one and gets its recorded answer.

    Args:
        call: The record of this call.
        wait_s: How long to wait for another sender's end.
        work: Does the work and returns a JSON object in ASCII. A PlaceError from it means: nothing was done.
        clear: Ends whatever a runner that died half-way may have left.
    """
    if not call.lock(time.monotonic() + wait_s):
        return '{"outcome": "running"}'
    state, body = call.read()
    if state == DONE:
        return body.decode("ascii")[:-1] + ', "replayed": true}'
    if state == CANCELLED:
        return '{"outcome": "cancelled"}'
    if state == STARTED:
        # Whoever did it died without a word (kill -9, out of memory).
        clear()
        return '{"outcome": "unknown"}'
    call.write(STARTED, b"%d" % os.getpid())
    try:
        answer = work()
    except PlaceError:
        call.forget()
        raise
    call.write(DONE, answer.encode("ascii"))
    return answer


def tidy(state_dir: str, uploads_dir: str) -> None:
    """Remove records, logs and uploads that nobody came for, by age, number and size; at most once a minute."""
    stamp = state_dir + "/tidied"
    now = time.time()
    try:
        if 0 <= now - os.stat(stamp).st_mtime < TIDY_EVERY_S:
            return
    except FileNotFoundError:
        pass
    os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
    os.utime(stamp)
    # Apart, since logs are large: they must not push out the records that keep a call from being made twice.
    _thin(_entries(state_dir, ".call"), now)
    _thin(_entries(state_dir, ".log") + _entries(uploads_dir, ""), now)


def _thin(entries: list[tuple[float, int, str]], now: float) -> None:
    total = 0
    for count, (modified, size, path) in enumerate(sorted(entries, reverse=True), 1):
        total += size
        if (now - modified > KEEP_S or total > KEEP_BYTES or count > KEEP_FILES) and not _in_use(path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # another call tidies too


def _entries(directory: str, ending: str) -> list[tuple[float, int, str]]:
    found = []
    try:
        for entry in os.scandir(directory):
            if entry.name.endswith(ending):
                about = entry.stat(follow_symlinks=False)
                found.append((about.st_mtime, about.st_size, entry.path))
    except FileNotFoundError:
        pass
    return found


def _in_use(path: str) -> bool:
    """Tell whether a call is still running, by its lock."""
    if not path.endswith(".call"):
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
