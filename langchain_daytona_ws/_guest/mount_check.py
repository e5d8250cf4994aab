"""Check whether a mount is alive and S3 accepts its requests, in a child process that can be abandoned.

While a FUSE daemon hangs, each process that accesses its mount blocks, and only SIGKILL ends it. ``stat`` of the
mount's root proves nothing: the kernel caches the root's attributes for ever (mount-s3), so ``stat`` succeeds on a
dead mount. ``statvfs`` always reaches the daemon, and the lookup of a new name always reaches S3.
"""

from __future__ import annotations

import errno
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

ALIVE, REACHES_S3, REFUSED = b"alive", b"+", b"-"


class Check:
    """The check of the mount at ``directory``. It begins when this object is created."""

    def __init__(self, directory: str) -> None:
        self._began = time.monotonic()
        self._output = b""
        self.descriptor, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                # Close all other descriptors, such as locks and pipes to the caller: this process may outlive the
                # call, and must not block other calls.
                os.closerange(0, write)
                os.closerange(write + 1, 256)
                _examine(directory, write)
            finally:
                os._exit(0)
        os.close(write)

    def is_alive(self, limit_s: float) -> bool:
        """Return whether the mount's daemon answers within ``limit_s`` seconds after the start."""
        return self._await(len(ALIVE), limit_s)

    def is_refused(self, limit_s: float) -> bool:
        """Return whether S3 refuses requests through the mount; False if S3 has not answered within ``limit_s``."""
        return self._await(len(ALIVE) + 1, limit_s) and self._output.endswith(REFUSED)

    def answers(self, limit_s: float) -> bool:
        """Return whether the daemon and S3 answer, even with a refusal."""
        return self._await(len(ALIVE) + 1, limit_s)

    def end(self) -> None:
        """Kill the process that checks the mount, and do not wait for its end."""
        os.close(self.descriptor)
        try:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, os.WNOHANG)
        except OSError:
            pass  # not our child: a call that may create a job runs in a forked process (job_run)

    def _await(self, size: int, limit_s: float) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while len(self._output) < size:
            left_s = self._began + limit_s - time.monotonic()
            if not poll.poll(max(left_s, 0.0) * 1000):
                return False
            piece = os.read(self.descriptor, 64)
            if not piece:
                return False
            self._output += piece
        return True


def _examine(directory: str, write: int) -> None:
    if device(directory) is None:
        return
    os.statvfs(directory)
    os.write(write, ALIVE)
    os.write(write, REACHES_S3 if _reaches_s3(directory) else REFUSED)


def _reaches_s3(directory: str) -> bool:
    """Return whether S3 accepts requests; mount-s3 turns every refusal into EIO."""
    name = "%s/.langchain-daytona-ws-%s" % (directory, os.urandom(8).hex())
    # Also try to list: if a policy allows listing only under a condition, S3 answers 403 for a missing name.
    return not (_is_refused(os.stat, name) and _is_refused(_list, directory))


def _list(directory: str) -> None:
    with os.scandir(directory) as entries:
        next(entries, None)


def _is_refused(access: Callable[[str], object], path: str) -> bool:
    try:
        access(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return True
    return False


def device(directory: str) -> int | None:
    """Return the device of the S3 mount at a directory; None if there is none. Ask the kernel, not the mount."""
    above, name = os.path.split(directory)
    path = escaped(os.path.join(os.path.realpath(above), name))
    found = None
    with open("/proc/self/mountinfo", errors="surrogateescape") as table:
        for line in table:
            if (" " + path + " ") not in line:
                continue
            fields = line.split(" ")
            if fields[4] == path:
                is_ours = " mountpoint-s3 " in line.partition(" - ")[2]
                major, minor = fields[2].split(":")
                found = os.makedev(int(major), int(minor)) if is_ours else None
    return found


def escaped(path: str) -> str:
    """Escape a path as the kernel's mount table does."""
    for char, code in (("\\", "\\134"), (" ", "\\040"), ("\t", "\\011"), ("\n", "\\012"), ("#", "\\043")):
        path = path.replace(char, code)
    return path
