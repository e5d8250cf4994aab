"""Walk what is below an open directory, never through a symlink; directories that cannot be read are named."""

from __future__ import annotations

import errno
import os
import time

from langchain_daytona_ws._guest.walk import SAFE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeVar

    S = TypeVar("S")

    class Visitor(Protocol[S]):
        """Sees each entry once. ``fd`` is the open directory that ``name`` is in."""

        def directory(self, above: S, path: str, name: str, fd: int) -> S | None:
            """See a directory, before what is in it; return its state, or None to leave out what is in it."""
            ...

        def file(self, above: S, path: str, name: str, fd: int) -> None:
            """See anything else: a file, a symlink, a FIFO."""
            ...


LONGEST_PATH = 4095  # bytes, PATH_MAX without its NUL
MAX_ENTRIES = 200_000  # looked at in one call
MAX_DEPTH = 200  # one open directory each
# The entry went away, or something else took its place.
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Scan:
    """One walk; ``cut`` when it ended early, at a limit or because time was up (``timed_out``).

    Args:
        deadline: When to stop, on the monotonic clock.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.cut = self.timed_out = False
        self.left_out = False  # a path too long for any call
        self.unreadable: list[str] = []  # directories
        self._entries = 0

    def run(self, fd: int, prefix: str, visitor: Visitor[S], start: S) -> None:
        """Walk below the directory ``fd``, and close it; ``prefix`` is what the paths in it begin with.

        Raises:
            OSError: That directory itself cannot be read.
        """
        stack: list[tuple[int, str, S, list[tuple[str, bool]]]] = [(fd, prefix, start, [])]
        try:
            stack[0][3].extend(self._names(fd))
            while stack and not self.cut:
                fd, prefix, state, names = stack[-1]
                if not names:
                    os.close(stack.pop()[0])
                    continue
                if time.monotonic() > self.deadline:
                    self.cut = self.timed_out = True
                    break
                name, is_dir = names.pop()
                path = prefix + name
                if len(os.fsencode(path)) > LONGEST_PATH:
                    self.left_out = True
                elif not is_dir:
                    visitor.file(state, path, name, fd)
                else:
                    below = visitor.directory(state, path, name, fd)
                    if below is not None:
                        self._enter(stack, fd, name, path, below)
        finally:
            for open_fd, *_ in stack:
                os.close(open_fd)

    def _enter(
        self, stack: list[tuple[int, str, S, list[tuple[str, bool]]]], fd: int, name: str, path: str, state: S
    ) -> None:
        if len(stack) >= MAX_DEPTH:
            self.cut = True
            return
        names: list[tuple[str, bool]] = []
        try:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | SAFE, dir_fd=fd)
            stack.append((below, path + "/", state, names))
            # Opening may work where reading does not: /proc/1/map_files.
            names += self._names(below)
        except OSError as error:
            if error.errno not in GONE:
                self.unreadable.append(path)

    def _names(self, fd: int) -> list[tuple[str, bool]]:
        names: list[tuple[str, bool]] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    self.cut = True
                    break
                try:
                    names.append((entry.name, entry.is_dir(follow_symlinks=False)))
                except OSError:  # gone meanwhile
                    continue
        return names
