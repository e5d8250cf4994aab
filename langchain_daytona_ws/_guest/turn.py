"""One change of files at a time, and no read or download in the midst of one.

A change truncates the file and writes it anew, since the workspace may be a bucket, where nothing can be renamed.
Without turns, two edits at once would see each other's half-written file. Commands take no turns.
"""

from __future__ import annotations

import fcntl
import os
import time

CHANGES = ("write", "edit", "delete")


def take(state_dir: str, op: str, wait_s: float) -> bool:
    """Wait for the turn, which ends with this process; return whether it came in time."""
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
