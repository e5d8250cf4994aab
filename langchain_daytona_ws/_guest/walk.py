"""Reach files below a root and nothing else, whatever the paths and symlinks say, also while they change.

Each step opens one name relative to the directory before it and never follows a symlink by itself; a symlink
is read and its target walked in the same way, as long as it stays inside. So there is no moment between a
check and a use in which a swapped symlink could lead out.
"""

from __future__ import annotations

import errno
import os
import stat

from langchain_daytona_ws._guest import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Callable

MAX_LINKS = 40  # as Linux itself
LOG_OPS = ("read", "view", "fetch", "grep")
MAX_STEPS = 20_000  # a chain of `..` targets may restart the walk again and again

# O_PATH needs no read permission on the way; only Linux has it.
_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
# O_NONBLOCK: a FIFO that took the place of a file must not hang the call.
SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class RefusedError(Exception):
    """An expected refusal: its code and facts, as in the contract in ``files``."""

    def __init__(self, error: str, **facts: object) -> None:
        super().__init__(error)
        self.error = error
        self.facts = facts


class Spot:
    """A place in the workspace: an open parent directory and a name in it, ``"."`` for the root itself."""

    def __init__(self, parent: int, name: str, above: list[str]) -> None:
        self.parent = parent
        self.name = name
        self.path = "/".join([*above, name]) if name != "." else "."

    def __enter__(self) -> Spot:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        os.close(self.parent)

    def status(self) -> os.stat_result | None:
        """Give the status of what stands here, a symlink itself included; None when there is nothing."""
        try:
            return os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, flags: int) -> int:
        return os.open(self.name, flags | SAFE, 0o666, dir_fd=self.parent)

    def open_dir(self) -> int:
        try:
            return os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | SAFE, dir_fd=self.parent)
        except FileNotFoundError:
            raise RefusedError("missing") from None
        except NotADirectoryError:
            raise RefusedError("not_a_directory") from None


def answer(operation: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one operation; expected failures are answers, not exceptions.

    With ``base``, paths are relative to that directory and not to the workspace that was entered; the directories
    in ``made`` are made before, with sudo where it takes that. With ``log``, the path is the absolute one of a
    command's log, which can only be read.
    """
    for directory in request.get("made", ()):
        place.make_directory(directory)
    if "base" in request:
        request = {**request, "root": request["base"]}
    try:
        return {"ok": True, **operation(_of_log(request) if request.get("log") else request)}
    except RefusedError as refusal:
        return {"ok": False, "error": refusal.error, **refusal.facts}
    except OSError as error:
        if error.errno == errno.ELOOP:  # a symlink took the place of what was looked at a moment ago
            return {"ok": False, "error": "busy"}
        name = errno.errorcode.get(error.errno or 0, "EIO")
        return {"ok": False, "error": "os", "errno": name, "text": error.strerror or ""}


def _of_log(request: dict[str, Any]) -> dict[str, Any]:
    """Return the request for a log, after a look whether it is one of this library's own."""
    directory = place.state_directory()
    above, name = os.path.split(request["path"])
    if above != directory or not name.endswith(".log") or request["op"] not in LOG_OPS:
        raise RefusedError("missing")
    try:
        status = os.lstat(request["path"])
    except FileNotFoundError:
        raise RefusedError("missing") from None
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        raise RefusedError("missing")
    return {**request, "root": directory, "path": name}


def locate(root: str, path: str, follow: bool = True, make_parents: bool = False) -> Spot:
    """Walk to ``path`` below ``root``.

    A symlink in last place is followed unless ``follow`` is false; what it names, or ``path`` itself, need
    not exist. Missing directories on the way are made with ``make_parents``.
    """
    walk = _Walk(root, make_parents)
    try:
        return walk.to(_parts(path), follow)
    except BaseException:
        os.close(walk.here)
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
    """Refuse all but a regular file."""
    if status is None:
        raise RefusedError("missing")
    if stat.S_ISDIR(status.st_mode):
        raise RefusedError("is_directory")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("not_regular", kind=special_kind(status))
    return status


def inside(root: str, target: str) -> list[str] | None:
    """Give the parts below ``root`` of an absolute symlink target, or None when it names another place."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    for base in (root, os.path.realpath(root)):
        above = [part for part in base.split("/") if part not in ("", ".")]
        if parts[: len(above)] == above:
            return parts[len(above) :]
    return None


def _parts(path: str) -> list[str]:
    """Check a requested path again: the host has normalised it, but here is where it counts."""
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
        self.above: list[str] = []
        self.here = self._open_root()

    def to(self, parts: list[str], follow: bool) -> Spot:
        todo = parts[::-1]
        while todo:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise RefusedError("loop")
            name = todo.pop()
            if name == "..":
                if not self.above:
                    raise RefusedError("outside")
                # Not by opening "..": the directory could have been moved out meanwhile.
                todo += self.above[-2::-1]
                self._restart()
                continue
            last = not todo
            target = self._link(name) if follow or not last else None
            if target is not None:
                todo += self._turn(target)[::-1]
            elif last:
                return Spot(self.here, name, self.above)
            else:
                self._enter(name)
        # The path, or a symlink's target, is the root or a directory already entered.
        if not self.above:
            return Spot(self.here, ".", [])
        name = self.above[-1]
        above = self.above[:-1]
        self._restart()
        for part in above:
            self._enter(part)
        return Spot(self.here, name, above)

    def _turn(self, target: str) -> list[str]:
        """Give the parts that a symlink's target adds, back at the root when it is absolute."""
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
            return os.readlink(name, dir_fd=self.here)
        except OSError:
            return None  # no symlink, or nothing there: opening it tells

    def _enter(self, name: str) -> None:
        try:
            below = os.open(name, _STEP, dir_fd=self.here)
        except FileNotFoundError:
            if not self.make:
                raise RefusedError("missing") from None
            self._make(name)
            below = os.open(name, _STEP, dir_fd=self.here)
        except NotADirectoryError:
            raise RefusedError("not_a_directory") from None
        os.close(self.here)
        self.here = below
        self.above = [*self.above, name]

    def _make(self, name: str) -> None:
        try:
            os.mkdir(name, dir_fd=self.here)
        except FileExistsError:  # somebody was faster, which is as good (contextlib would cost start-up time)
            return

    def _restart(self) -> None:
        top = self._open_root()
        os.close(self.here)
        self.here = top
        self.above = []

    def _open_root(self) -> int:
        return os.open(self.root, os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY))
