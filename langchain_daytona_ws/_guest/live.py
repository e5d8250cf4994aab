"""What a running command has printed since it was last looked at."""

from __future__ import annotations

import binascii
import fcntl
import os
import stat
import time

from langchain_daytona_ws._guest import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A request that is not carried out leaves no record: nothing tells how long to wait for it.
UNRECORDED_WAIT_S = 1.0
GLANCE_S = 0.02


def main(request: dict[str, Any]) -> str:
    """Wait until there is output after an offset, or the command has ended; return what there is as a JSON object.

    Args:
        request: ``key`` of the call; ``offset`` and ``limit_bytes`` of its output; ``wait_s``, for how long to wait,
            0 to take what the log of an ended command has; ``linger_s``, for how long to wait for more, once there
            is some.
    """
    base = "%s/%s" % (place.state_directory(), request["key"])
    offset, limit, wait_s = request["offset"], request["limit_bytes"], request["wait_s"]
    log, began, fresh_at = -1, time.monotonic(), 0.0
    while True:
        if log < 0:
            log = _open(base + ".log")
        size = os.fstat(log).st_size if log >= 0 else 0
        # After the size: what was there while it ran is of the command, and not of what it left running.
        state = _state(base + ".call")
        now = time.monotonic()
        if size > offset and not fresh_at:
            fresh_at = now
        waited_s = now - began
        if (
            state == "ended"
            or waited_s >= wait_s
            or size - offset >= limit
            or (fresh_at and now - fresh_at >= request["linger_s"])
            or (not state and waited_s >= UNRECORDED_WAIT_S)
        ):
            break
        time.sleep(GLANCE_S)
    ended = state == "ended"
    data = (
        os.pread(log, max(0, min(limit, size - offset)), offset)
        if log >= 0 and not (ended and wait_s)
        else b""
    )
    return '{"outcome": "live", "ended": %s, "data": "%s"}' % (
        "true" if ended else "false",
        binascii.b2a_base64(data, newline=False).decode("ascii"),
    )


def _open(path: str) -> int:
    """Return a descriptor of a plain file, -1 when there is none: the agent's commands may write here too."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return -1
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return -1


def _state(path: str) -> str:
    """Return "running", "ended", or "" for a call that was not begun."""
    try:
        record = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        # Shared: two who look must not take each other for the one who runs it.
        fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return "running"
    else:
        return "ended" if os.fstat(record).st_size else ""
    finally:
        os.close(record)
