"""Wait for the lock of a file."""

from __future__ import annotations

import fcntl
import time


def lock_within(fd: int, wait_s: float, kind: int = fcntl.LOCK_EX, longest_pause_s: float = 0.02) -> bool:
    """Lock an open file; return False if another process still holds the lock after ``wait_s`` seconds.

    ``longest_pause_s`` is the longest pause between two attempts.
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
