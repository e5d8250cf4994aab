"""List one directory, and find names below one with a glob pattern."""

from __future__ import annotations

import os
import time

from langchain_daytona_ws._guest.match import SKIPPED, Glob, GlobError, split_literal
from langchain_daytona_ws._guest.walk import SAFE, RefusedError, answer, inside, kind_of, locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LONGEST_PATH = 4095  # bytes, PATH_MAX without its NUL
MAX_ENTRIES = 200_000  # looked at in one call
MAX_DEPTH = 200  # one open directory each


def main(request: dict[str, Any]) -> dict[str, Any]:
    return answer({"list": list_directory, "glob": glob}[request["op"]], request)


def list_directory(request: dict[str, Any]) -> dict[str, Any]:
    """List directories first, then the rest, each by name; hidden names included."""
    root = request["root"]
    with locate(root, request["path"]) as spot:
        path, fd = spot.path, spot.open_dir()
    try:
        found: list[tuple[bool, str]] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                found.append((not entry.is_dir(follow_symlinks=False), entry.name))
                if len(found) > MAX_ENTRIES:
                    break
        total = len(found)
        rows, left = [], request["limit_bytes"]
        for _, name in sorted(found)[: request["limit"]]:
            row = _described(fd, root, name)
            if row is None:
                total -= 1
                continue
            left -= len(os.fsencode(name)) + 40
            if left < 0:
                break
            rows.append(row)
    finally:
        os.close(fd)
    return {"path": path, "entries": rows, "total": total, "more": total > len(rows)}


def _described(fd: int, root: str, name: str) -> list[object] | None:
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        kind = kind_of(status)
        target = _target(root, os.readlink(name, dir_fd=fd)) if kind == "link" else None
    except OSError:  # gone meanwhile, or changed under way
        return None
    return [name, kind, status.st_size if kind == "file" else 0, status.st_mtime_ns, target]


def _target(root: str, target: str) -> str:
    """Give a symlink's target, an absolute one from the workspace root, or ``""`` when it is outside."""
    if not target.startswith("/"):
        return target
    parts = inside(root, target)
    return "" if parts is None else "/" + "/".join(parts)


def glob(request: dict[str, Any]) -> dict[str, Any]:
    """Find files and symlinks, or directories for a pattern that ends in ``/``, newest first."""
    try:
        literal, rest = split_literal(request["pattern"])
        pattern = Glob(rest)
    except GlobError as error:
        raise RefusedError("bad_glob", text=str(error)) from None
    if ".." in literal.split("/"):
        raise RefusedError("bad_glob", text="a pattern can't contain '..'")
    try:
        spot = locate(request["root"], request["path"] + "/" + literal)
        with spot:
            base, fd = spot.path, spot.open_dir()
    except RefusedError as refusal:
        if literal == "." or refusal.error not in ("missing", "not_a_directory"):
            raise
        with locate(
            request["root"], request["path"]
        ) as spot:  # the base must exist, the pattern's part need not
            os.close(spot.open_dir())
        return {"paths": [], "total": 0, "more": False, "timed_out": False, "skipped": []}
    search = _Search(pattern, time.monotonic() + request["timeout_s"])
    found = sorted(search.below(fd, "" if base == "." else base + "/"))
    rows: list[list[object]] = []
    left = request["limit_bytes"]
    for age, path, kind, size in found[: request["limit"]]:
        left -= len(os.fsencode(path)) + 40
        if left < 0:
            break
        rows.append([path, kind, size, -age])
    return {
        "paths": rows,
        "total": len(found),
        "more": search.cut or search.left_out or len(rows) < len(found),
        "timed_out": search.timed_out,
        "skipped": search.skipped[:20],
    }


class _Search:
    """A walk that goes only where the pattern can still match, and never through a symlink."""

    def __init__(self, pattern: Glob, deadline: float) -> None:
        self.pattern = pattern
        self.deadline = deadline
        self.entries = 0
        self.cut = self.timed_out = self.left_out = False
        self.skipped: list[str] = []

    def below(self, fd: int, prefix: str) -> Iterator[tuple[int, str, str, int]]:
        """Yield (negative mtime in ns, path, kind, bytes); takes over ``fd``."""
        names: list[str] = []
        stack = [(fd, prefix, self.pattern.start(), names)]
        try:
            names += self._names(fd)
            while stack and not self.cut:
                fd, prefix, states, names = stack[-1]
                if not names:
                    os.close(stack.pop()[0])
                    continue
                self._check_time()
                name = names.pop()
                after = self.pattern.step(states, name)
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False) if after else None
                except OSError:  # gone meanwhile
                    continue
                if status is None:
                    continue
                if len(os.fsencode(prefix + name)) > LONGEST_PATH:
                    self.left_out = True  # no call could name it
                    continue
                kind = kind_of(status)
                if (
                    self.pattern.accepts(after)
                    and (kind == "dir") is self.pattern.only_dirs
                    and kind != "other"
                ):
                    yield -status.st_mtime_ns, prefix + name, kind, status.st_size if kind == "file" else 0
                if kind == "dir" and self.pattern.goes_on(after) and self._wanted(prefix, name, states):
                    try:
                        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | SAFE, dir_fd=fd)
                    except OSError:  # gone, swapped for a symlink, or not readable
                        continue
                    if len(stack) >= MAX_DEPTH:
                        os.close(below)
                        self.cut = True
                        continue
                    names = []
                    stack.append((below, prefix + name + "/", after, names))
                    names += self._names(below)
        finally:
            for open_fd, *_ in stack:
                os.close(open_fd)

    def _names(self, fd: int) -> list[str]:
        names: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                self.entries += 1
                if self.entries > MAX_ENTRIES:
                    self.cut = True
                    break
                names.append(entry.name)
        return names

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            self.cut = self.timed_out = True

    def _wanted(self, prefix: str, name: str, states: frozenset[tuple[int, int]]) -> bool:
        if name not in SKIPPED or self.pattern.names(name, states):
            return True
        self.skipped.append(prefix + name)
        return False
