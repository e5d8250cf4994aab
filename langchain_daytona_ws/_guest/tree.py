"""List a directory, and find names below a directory with a glob pattern."""

from __future__ import annotations

import os
import time

from langchain_daytona_ws._guest.match import Glob, GlobError, GlobWalk, compiled, readings
from langchain_daytona_ws._guest.omitted import UNREADABLE, omitted
from langchain_daytona_ws._guest.scan import MAX_ENTRIES, Scan
from langchain_daytona_ws._guest.walk import RefusedError, answer, inside, kind_of, locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from langchain_daytona_ws._guest.match import States


def main(request: dict[str, Any]) -> dict[str, Any]:
    return answer({"list": list_directory, "glob": glob}[request["op"]], request)


def list_directory(request: dict[str, Any]) -> dict[str, Any]:
    """List the subdirectories, then the other entries, both sorted by name. Hidden names are included."""
    root = request["root"]
    with locate(root, request["path"]) as location:
        path, fd = location.path, location.open_dir()
    try:
        found: list[tuple[bool, str]] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                found.append((not entry.is_dir(follow_symlinks=False), entry.name))
                if len(found) > MAX_ENTRIES:
                    break
        total = len(found)
        rows, budget = [], request["limit_bytes"]
        for _, name in sorted(found)[: request["limit"]]:
            row = _described(fd, root, name)
            if row is None:
                total -= 1
                continue
            budget -= len(os.fsencode(name)) + 40
            if budget < 0:
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
    except OSError:  # removed or changed meanwhile
        return None
    return [name, kind, status.st_size if kind == "file" else 0, status.st_mtime_ns, target]


def _target(root: str, target: str) -> str:
    """Return a symlink's target. If the target is absolute, return ``/`` and its path in the workspace; if it is
    outside of the workspace, return ``""``.
    """
    if not target.startswith("/"):
        return target
    parts = inside(root, target)
    return "" if parts is None else "/" + "/".join(parts)


def glob(request: dict[str, Any]) -> dict[str, Any]:
    """Find files and symlinks, newest first; if the pattern ends in ``/``, find directories.

    If nothing matches, try other readings of the pattern, see `match.readings`.
    """
    began = time.monotonic()
    result = _matches(request)
    path = "" if request["path"] == "." else request["path"]
    for kind, pattern in [] if result["total"] or result["more"] else readings(request["pattern"], path):
        timeout_s = request["timeout_s"] - (time.monotonic() - began)
        try:
            reading = _matches({**request, "pattern": pattern, "limit": 1, "timeout_s": timeout_s})
        except RefusedError:  # this reading is not a valid glob, or its directory is refused
            continue
        if reading["paths"]:
            return {**result, "reading": [kind, pattern, reading["paths"][0][0]]}
    return {**result, "reading": None}


def _matches(request: dict[str, Any]) -> dict[str, Any]:
    try:
        literal, pattern = compiled(request["pattern"])
    except GlobError as error:
        raise RefusedError("bad_glob", text=str(error)) from None
    try:
        location = locate(request["root"], request["path"] + "/" + literal)
        with location:
            base, fd = location.path, location.open_dir()
    except RefusedError as refusal:
        if literal == "." or refusal.error not in ("missing", "not_a_directory"):
            raise
        # The directory to search must exist; the literal directories of the pattern may be missing.
        with locate(request["root"], request["path"]) as location:
            os.close(location.open_dir())
        return {"paths": [], "total": 0, "more": False, "timed_out": False, "skipped": [], "omitted": {}}
    search = _Search(pattern)
    scan = Scan(time.monotonic() + request["timeout_s"])
    scan.run(fd, "" if base == "." else base + "/", search, pattern.start())
    found = sorted(search.found)
    rows: list[list[object]] = []
    budget = request["limit_bytes"]
    for age, path, kind, size in found[: request["limit"]]:
        budget -= len(os.fsencode(path)) + 40
        if budget < 0:
            break
        rows.append([path, kind, size, -age])
    return {
        "paths": rows,
        "total": len(found),
        "more": scan.cut or scan.left_out or len(rows) < len(found),
        "timed_out": scan.timed_out,
        "skipped": search.walk.skipped[:20],
        "omitted": omitted({UNREADABLE: scan.unreadable}),
    }


class _Search:
    """Collects the matches of a pattern. The state of a directory, see `scan.Visitor`, is the set of positions in the
    pattern that its path has reached.
    """

    def __init__(self, pattern: Glob) -> None:
        self.found: list[tuple[int, str, str, int]] = []  # negative mtime in ns, path, kind, bytes
        self.walk = GlobWalk(pattern)

    def directory(self, above: States, path: str, name: str, fd: int) -> States | None:
        below, matches = self.walk.directory(above, path, name)
        if matches:
            self._add(path, name, fd)
        return below

    def file(self, above: States, path: str, name: str, fd: int) -> None:
        if self.walk.file(above, name):
            self._add(path, name, fd)

    def _add(self, path: str, name: str, fd: int) -> None:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:  # removed meanwhile
            return
        kind = kind_of(status)
        if kind != "other":
            self.found.append((-status.st_mtime_ns, path, kind, status.st_size if kind == "file" else 0))
