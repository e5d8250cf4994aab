"""Run the file operations of a request under a lock, so that no operation reads a half-written file.

A change may truncate and rewrite a file in place: the workspace may be an S3 mount, which has no rename. Commands,
lists and searches do not use the lock.
"""

from __future__ import annotations

import fcntl
import posix

from langchain_daytona_ws._guest import dirs
from langchain_daytona_ws._guest.locks import lock_within
from langchain_daytona_ws._guest.walk import answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Request = dict[str, Any]
    Answer = dict[str, Any]

LOCK_WAIT_S = 20.0


def run_all(operations: dict[str, Callable[[Request], Answer]], request: Request) -> Answer:
    """Run one operation; for the op ``batch``, run all ``requests`` and return a list of ``answers``.

    A request with a ``key`` changes files, and excludes all other operations. Requests without a key run at the same
    time. The lock is released before the changes are pushed to S3.
    """
    lock = posix.open(
        dirs.state_directory() + "/files.lock", posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW, 0o600
    )
    try:
        if not lock_within(lock, LOCK_WAIT_S, fcntl.LOCK_EX if "key" in request else fcntl.LOCK_SH):
            return {"ok": False, "error": "busy"}
        if request["op"] != "batch":
            return answer(operations[request["op"]], request)
        answers = [answer(operations[each["op"]], each) for each in request["requests"]]
        return {"ok": True, "answers": answers}
    finally:
        posix.close(lock)
