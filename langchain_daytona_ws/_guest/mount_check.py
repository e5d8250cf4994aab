"""Find out how a mount is: each is examined by a process of its own, which can be left behind.

While a FUSE daemon hangs, whoever asks it anything waits, and only SIGKILL ends that. The attributes of a mount's
root are no test: the kernel remembers them for ever (mount-s3), so that ``stat`` succeeds on a dead mount. ``statvfs``
always asks the daemon, and the lookup of a name always asks S3.
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
    """The examination of one mount. It begins at once.

    Args:
        directory: Where it should be mounted.
    """

    def __init__(self, directory: str) -> None:
        self._began = time.monotonic()
        self._said = b""
        self.descriptor, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                # The lock, and the pipes to who calls: this process may stay behind, and must hold up nobody.
                os.closerange(0, write)
                os.closerange(write + 1, 256)
                _examine(directory, write)
            finally:
                os._exit(0)
        os.close(write)

    def is_alive(self, limit_s: float) -> bool:
        """Tell whether the mount's daemon answers within so many seconds of the beginning."""
        return self._await(len(ALIVE), limit_s)

    def is_refused(self, limit_s: float) -> bool:
        """Tell whether S3 refuses what is asked through the mount; one that is slow to answer does not."""
        return self._await(len(ALIVE) + 1, limit_s) and self._said.endswith(REFUSED)

    def end(self) -> None:
        """Leave it behind."""
        os.close(self.descriptor)
        try:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, os.WNOHANG)
        except OSError:
            pass  # its parent may be another process: jobs are started by a child of who began this

    def _await(self, size: int, limit_s: float) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while len(self._said) < size:
            left_s = self._began + limit_s - time.monotonic()
            if not poll.poll(max(left_s, 0.0) * 1000):
                return False
            piece = os.read(self.descriptor, 64)
            if not piece:
                return False
            self._said += piece
        return True


def _examine(directory: str, write: int) -> None:
    if device(directory) is None:
        return
    os.statvfs(directory)
    os.write(write, ALIVE)
    os.write(write, REACHES_S3 if _reaches_s3(directory) else REFUSED)


def _reaches_s3(directory: str) -> bool:
    """Tell whether S3 answers; every refusal of it is an input/output error here (mount-s3)."""
    name = "%s/.langchain-daytona-ws-%s" % (directory, os.urandom(8).hex())
    # S3 may answer 403 for what is missing, where listing is allowed under a condition only.
    return not (_is_refused(os.stat, name) and _is_refused(_first, directory))


def _first(directory: str) -> None:
    with os.scandir(directory) as entries:
        next(entries, None)


def _is_refused(ask: Callable[[str], object], path: str) -> bool:
    try:
        ask(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return True
    return False


def device(directory: str) -> int | None:
    """Return the device of the S3 mount at a directory, from the kernel's table: without asking the mount."""
    above, name = os.path.split(directory)
    path = written(os.path.join(os.path.realpath(above), name))
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


def written(path: str) -> str:
    """Write a path as the kernel's table of mounts does."""
    for char, code in (("\\", "\\134"), (" ", "\\040"), ("\t", "\\011"), ("\n", "\\012"), ("#", "\\043")):
        path = path.replace(char, code)
    return path
