"""The directories that the package uses in a sandbox: the workspace, and its own state on the local disk."""

from __future__ import annotations

import posix
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

# Outside of the workspace: records and logs belong to this sandbox, but the workspace may be on S3.
STATE_PARENT = "/tmp"  # noqa: S108 - one fixed, checked, user-owned directory below it
STATE_NAME = ".langchain-daytona-ws-%d"  # %d: the user's id
UPLOADS = "/tmp/.langchain-daytona-ws-uploads"  # noqa: S108 - each file in it is checked by its hash


class SetupError(Exception):
    """The call could not start, and no command or operation ran; ``code`` and ``detail`` are returned to the host."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def enter(request: Request) -> Request:
    """Create the workspace directory if it is missing, and change into it; return no fields for the answer."""
    _enter(request["root"])
    return {}


def leave(request: Request, timed_out: bool) -> Request:
    """Return no fields for the answer: on the sandbox's own disk there is nothing to do at the end of a call."""
    return {}


def _enter(root: str) -> None:
    try:
        try:
            posix.chdir(root)
        except FileNotFoundError:
            _make(root)
            posix.chdir(root)
    except OSError as error:
        raise SetupError("workspace", error.strerror or str(error)) from None


def make_directory(path: str) -> None:
    """Create a directory outside of the workspace, owned by this user, if it does not exist."""
    import os

    if os.path.isdir(path):
        return
    try:
        _make(path)
    except SetupError as error:
        raise SetupError("directory", "%s: %s" % (path, error.detail)) from None


def _make(root: str) -> None:
    import os

    try:
        os.makedirs(root, exist_ok=True)
    except PermissionError:
        # The default snapshots run as a user who cannot write to /mnt but can use sudo.
        script = 'mkdir -p -- "$1" && chown "$2" -- "$1"'
        if run_quietly(["sudo", "-n", "sh", "-c", script, "sh", root, str(posix.getuid())]) != 0:
            raise SetupError("workspace", "Permission denied") from None
    except OSError as error:
        raise SetupError("workspace", error.strerror or str(error)) from None


def run_quietly(argv: list[str]) -> int:
    """Run a program without input or output; return its exit code, 127 if it cannot be started, or 128 plus the number
    of the signal that ended it.
    """
    import os

    pid = posix.fork()
    if pid == 0:
        try:
            null = posix.open(os.devnull, posix.O_RDWR)
            for fd in (0, 1, 2):
                posix.dup2(null, fd)
            os.execvp(argv[0], argv)
        finally:
            posix._exit(127)
    status = posix.waitpid(pid, 0)[1]
    return posix.WEXITSTATUS(status) if posix.WIFEXITED(status) else 128 + posix.WTERMSIG(status)


def state_directory() -> str:
    """Return the package's own directory on the sandbox's disk, private to this user; create it if it is missing."""
    path = "%s/%s" % (STATE_PARENT, STATE_NAME % posix.getuid())
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        found = posix.lstat(path)
        # Any user can create names in /tmp: do not write through a link or into another user's directory.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != posix.getuid():
            raise SetupError("state", path + " is not this user's own directory") from None
        if found.st_mode & 0o777 != 0o700:
            posix.chmod(path, 0o700)
    except OSError as error:
        raise SetupError("state", "%s: %s" % (path, error.strerror)) from None
    return path
