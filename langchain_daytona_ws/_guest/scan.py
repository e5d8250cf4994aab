"""Walk the tree below an open directory without following symlinks."""

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
        """Receives each visited entry once. ``fd`` is the open directory that contains ``name``.

        A visitor can compute a value for each directory, its state. ``above`` is the state of the directory that
        contains the entry; for the first directory it is ``start`` of `Scan.run`.
        """

        def directory(self, above: S, path: str, name: str, fd: int) -> S | None:
            """Visit a directory before its entries; return its state, or None to skip its entries."""
            ...

        def file(self, above: S, path: str, name: str, fd: int) -> None:
            """Visit any other entry: a file, a symlink, a FIFO."""
            ...


LONGEST_PATH = 4095  # bytes, PATH_MAX without its NUL
MAX_ENTRIES = 200_000  # maximum that one walk visits
MAX_DEPTH = 200  # each level keeps one directory open
# The errors of an entry that was removed or replaced.
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Scan:
    """One walk, at most until ``deadline`` (monotonic clock).

    ``cut``: the walk ended at a limit or at the deadline. ``timed_out``: it ended at the deadline.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.cut = self.timed_out = False
        self.left_out = False  # a path longer than PATH_MAX was not visited
        self.unreadable: list[str] = []  # directories that could not be read
        self._entries = 0

    def run(self, fd: int, prefix: str, visitor: Visitor[S], start: S) -> None:
        """Walk the tree below the open directory ``fd``, and close ``fd``. Each visited path begins with ``prefix``.

        Raises:
            OSError: The directory ``fd`` itself cannot be read.
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
            # A directory that can be opened may still be unreadable, such as /proc/1/map_files.
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
                except OSError:  # removed meanwhile
                    continue
        return names
