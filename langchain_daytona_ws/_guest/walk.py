"""Open files below a root, and never outside of it, even if another process changes symlinks meanwhile.

Each step opens one name in the directory that the step before has opened, and follows no symlink. Instead, the target
of a symlink is read and walked step by step, if it is below the root. So a symlink that replaces a file between check
and use cannot lead outside.
"""

from __future__ import annotations

import errno
import os
import stat

from langchain_daytona_ws._guest import dirs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Callable

MAX_LINKS = 40  # maximum number of symlinks in one path, as in Linux
LOG_OPS = ("read", "view", "fetch", "grep")  # operations that may read a command's log
MAX_STEPS = 20_000  # symlinks with `..` in their targets may restart the walk many times

# O_PATH, which macOS lacks, needs no read permission.
_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
# O_NONBLOCK: a FIFO that replaced a file must not block the call.
SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class RefusedError(Exception):
    """An expected failure, with its code and facts. The docstring of the module ``files`` describes them."""

    def __init__(self, error: str, **facts: object) -> None:
        super().__init__(error)
        self.error = error
        self.facts = facts


class Location:
    """A location in the workspace: the open parent directory, and a name in it. For the root, the name is ``"."``."""

    def __init__(self, parent: int, name: str, parents: list[str]) -> None:
        self.parent = parent
        self.name = name
        self.path = "/".join([*parents, name]) if name != "." else "."

    def __enter__(self) -> Location:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        os.close(self.parent)

    def status(self) -> os.stat_result | None:
        """Return the status of the entry, without following a symlink; None if the entry does not exist."""
        try:
            return os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, flags: int, mode: int = 0o666) -> int:
        return os.open(self.name, flags | SAFE, mode, dir_fd=self.parent)

    def open_dir(self) -> int:
        try:
            return os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | SAFE, dir_fd=self.parent)
        except FileNotFoundError:
            raise RefusedError("missing") from None
        except NotADirectoryError:
            raise RefusedError("not_a_directory") from None


def answer(operation: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    """Run one operation and return its answer. After an expected failure, the answer contains ``error``.

    Fields of the request: ``made``: directories to create first, with sudo if necessary. ``base``: the directory to
    which paths are relative, instead of the workspace. ``log``: True if the path is the absolute path of a command's
    log, which can only be read.
    """
    for directory in request.get("made", ()):
        dirs.make_directory(directory)
    if "base" in request:
        request = {**request, "root": request["base"]}
    try:
        return {"ok": True, **operation(_log_request(request) if request.get("log") else request)}
    except RefusedError as refusal:
        return {"ok": False, "error": refusal.error, **refusal.facts}
    except OSError as error:
        if error.errno == errno.ELOOP:  # a symlink replaced the entry after the check
            return {"ok": False, "error": "busy"}
        name = errno.errorcode.get(error.errno or 0, "EIO")
        return {"ok": False, "error": "os", "errno": name, "text": error.strerror or ""}


def _log_request(request: dict[str, Any]) -> dict[str, Any]:
    """Check that the path is a log of this package; return the request with the path relative to its directory."""
    directory = dirs.state_directory()
    parents, name = os.path.split(request["path"])
    if parents != directory or not name.endswith(".log") or request["op"] not in LOG_OPS:
        raise RefusedError("missing")
    try:
        status = os.lstat(request["path"])
    except FileNotFoundError:
        raise RefusedError("missing") from None
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        raise RefusedError("missing")
    return {**request, "root": directory, "path": name}


def locate(root: str, path: str, follow: bool = True, make_parents: bool = False) -> Location:
    """Walk to ``path`` below ``root``, and return the location. Neither the file nor a symlink's target need exist.

    If ``follow`` is False, a symlink at the end of the path is not followed. With ``make_parents``, missing parent
    directories are created.
    """
    walk = _Walk(root, make_parents)
    try:
        return walk.to(_parts(path), follow)
    except BaseException:
        os.close(walk.fd)
        raise


def kind_of(status: os.stat_result) -> str:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "dir"
    return "link" if stat.S_ISLNK(mode) else "other"


def special_kind(status: os.stat_result) -> str:
    mode = status.st_mode
    for test, name in (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISLNK, "a symlink"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return name
    return "special"


def need_file(status: os.stat_result | None) -> os.stat_result:
    """Return the status of a regular file; refuse everything else."""
    if status is None:
        raise RefusedError("missing")
    if stat.S_ISDIR(status.st_mode):
        raise RefusedError("is_directory")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("not_regular", kind=special_kind(status))
    return status


def inside(root: str, target: str) -> list[str] | None:
    """Return the parts of a symlink's absolute target, relative to ``root``; None if it is outside of ``root``."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    for base in (root, os.path.realpath(root)):
        parents = [part for part in base.split("/") if part not in ("", ".")]
        if parts[: len(parents)] == parents:
            return parts[len(parents) :]
    return None


def _parts(path: str) -> list[str]:
    """Check and split a requested path. The guest does not rely on the checks of the host."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or "\0" in path:
        raise RefusedError("bad_path")
    if ".." in parts:
        raise RefusedError("outside")
    return parts


class _Walk:
    def __init__(self, root: str, make: bool) -> None:
        self.root = root
        self.make = make
        self.steps = self.links = 0
        self.parents: list[str] = []
        self.fd = self._open_root()

    def to(self, parts: list[str], follow: bool) -> Location:
        pending = parts[::-1]
        while pending:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise RefusedError("loop")
            name = pending.pop()
            if name == "..":
                if not self.parents:
                    raise RefusedError("outside")
                # Do not open "..": the directory could have been moved outside.
                pending += self.parents[-2::-1]
                self._restart()
                continue
            last = not pending
            target = self._link(name) if follow or not last else None
            if target is not None:
                pending += self._resolve(target)[::-1]
            elif last:
                return Location(self.fd, name, self.parents)
            else:
                self._enter(name)
        # The walk ends at the root, or at a directory that it has already entered.
        if not self.parents:
            return Location(self.fd, ".", [])
        name = self.parents[-1]
        parents = self.parents[:-1]
        self._restart()
        for part in parents:
            self._enter(part)
        return Location(self.fd, name, parents)

    def _resolve(self, target: str) -> list[str]:
        """Return the parts of a symlink's target. If the target is absolute, restart the walk at the root."""
        self.links += 1
        if self.links > MAX_LINKS:
            raise RefusedError("loop")
        if not target.startswith("/"):
            return [part for part in target.split("/") if part not in ("", ".")]
        parts = inside(self.root, target)
        if parts is None:
            raise RefusedError("outside")
        self._restart()
        return parts

    def _link(self, name: str) -> str | None:
        try:
            return os.readlink(name, dir_fd=self.fd)
        except OSError:
            return None  # not a symlink, or missing: the caller gets the error when it opens the name

    def _enter(self, name: str) -> None:
        try:
            below = os.open(name, _STEP, dir_fd=self.fd)
        except FileNotFoundError:
            if not self.make:
                raise RefusedError("missing") from None
            self._make(name)
            below = os.open(name, _STEP, dir_fd=self.fd)
        except NotADirectoryError:
            raise RefusedError("not_a_directory") from None
        os.close(self.fd)
        self.fd = below
        self.parents = [*self.parents, name]

    def _make(self, name: str) -> None:
        try:
            os.mkdir(name, dir_fd=self.fd)
        except FileExistsError:  # another process created it (contextlib would cost start-up time)
            return

    def _restart(self) -> None:
        top = self._open_root()
        os.close(self.fd)
        self.fd = top
        self.parents = []

    def _open_root(self) -> int:
        return os.open(self.root, os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY))
