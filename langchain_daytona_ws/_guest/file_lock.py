"""A lock that serialises changes of files, and separates them from reads and downloads.

A change truncates and rewrites the file, since the workspace may be a bucket, which has no rename. Without the lock,
two concurrent edits would read each other's half-written file. Commands do not take the lock.
"""

from __future__ import annotations

import fcntl
import os
import time

CHANGES = ("write", "edit", "delete")


def acquire(state_dir: str, op: str, wait_s: float) -> bool:
    """Acquire the lock, which is held until this process ends; return False after ``wait_s`` seconds."""
    fd = os.open(state_dir + "/files.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    kind = fcntl.LOCK_EX if op in CHANGES else fcntl.LOCK_SH
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.003)
        else:
            return True
