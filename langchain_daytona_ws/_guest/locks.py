"""Wait for the lock of a file, and serialise changes of the workspace's files.

A change may truncate and rewrite a file, because the workspace may be an S3 mount, which has no rename. Without the
lock, a concurrent edit, read or download could read a half-written file. Commands, lists and searches do not use the
lock.
"""

from __future__ import annotations

import fcntl
import posix
import time


def lock_files(state_dir: str, is_change: bool, wait_s: float) -> bool:
    """Lock the workspace's files until this process ends; return False if they cannot be locked in ``wait_s`` seconds.

    Of the operations that use the lock, a change excludes all others; operations that change nothing exclude only
    changes.
    """
    fd = posix.open(state_dir + "/files.lock", posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW, 0o600)
    return lock_within(fd, wait_s, fcntl.LOCK_EX if is_change else fcntl.LOCK_SH)


def lock_within(fd: int, wait_s: float, kind: int = fcntl.LOCK_EX, longest_pause_s: float = 0.02) -> bool:
    """Lock an open file; return False if another process still holds the lock after ``wait_s`` seconds.

    Args:
        fd: The open file.
        wait_s: Longest wait, in seconds.
        kind: ``LOCK_EX`` or ``LOCK_SH``.
        longest_pause_s: Longest pause between two attempts, in seconds.
    """
    until, pause = time.monotonic() + wait_s, 0.003
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(pause)
            pause = min(pause * 1.3, longest_pause_s)
        else:
            return True
