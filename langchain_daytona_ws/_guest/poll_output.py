"""Read a running command's new output."""

from __future__ import annotations

import binascii
import fcntl
import os
import stat
import time

from langchain_daytona_ws._guest import dirs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The longest wait for a call that has no record: its request may never arrive.
UNRECORDED_WAIT_S = 1.0
POLL_S = 0.02


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Wait until a command has new output or has ended. Return the output, and whether the command has ended.

    Args:
        request: ``key``: the key of the command's call. ``offset`` and ``limit_bytes``: the output to return.
            ``wait_s``: the longest wait in seconds. If it is not 0, no output of an ended command is returned: the
            answer to the command's call has its last output. ``linger_s``: how many seconds to wait for more
            output after the first new output.
    """
    base = "%s/%s" % (dirs.state_directory(), request["key"])
    offset, limit, wait_s = request["offset"], request["limit_bytes"], request["wait_s"]
    log, began, output_at = -1, time.monotonic(), 0.0
    while True:
        if log < 0:
            log = _open(base + ".log")
        size = os.fstat(log).st_size if log >= 0 else 0
        # Read the state after the size: if the command still runs then, all these bytes were printed before its end.
        # After its end, background processes may print more.
        state = _state(base + ".call")
        now = time.monotonic()
        if size > offset and not output_at:
            output_at = now
        waited_s = now - began
        if (
            state == "ended"
            or waited_s >= wait_s
            or size - offset >= limit
            or (output_at and now - output_at >= request["linger_s"])
            or (not state and waited_s >= UNRECORDED_WAIT_S)
        ):
            break
        time.sleep(POLL_S)
    ended = state == "ended"
    data = (
        os.pread(log, max(0, min(limit, size - offset)), offset)
        if log >= 0 and not (ended and wait_s)
        else b""
    )
    return {
        "outcome": "live",
        "ended": ended,
        "data": binascii.b2a_base64(data, newline=False).decode("ascii"),
    }


def _open(path: str) -> int:
    """Open a regular file; return -1 if there is none. A command may have made another kind of file at this path."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return -1
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return -1


def _state(path: str) -> str:
    """Return "running", "ended", or "" if the call has not begun."""
    try:
        record = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        # A shared lock: otherwise two polls could mistake each other for the running command.
        fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return "running"
    else:
        return "ended" if os.fstat(record).st_size else ""
    finally:
        os.close(record)
