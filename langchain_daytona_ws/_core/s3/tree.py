"""List a directory and match globs, with the guest's contract in ``_guest.files``.

S3 has no modification times for directories: they are 0.
"""

from __future__ import annotations

from typing import Any

from langchain_daytona_ws._core.s3.lookup import Lookup
from langchain_daytona_ws._core.s3.names import below, is_hidden, key_of
from langchain_daytona_ws._core.s3.store import ObjectInfo, ObjectStorePort
from langchain_daytona_ws._core.s3.walk import Walk
from langchain_daytona_ws._guest.doubt import readings
from langchain_daytona_ws._guest.match import SKIPPED, Glob, GlobError, split_literal
from langchain_daytona_ws._guest.scan import MAX_ENTRIES
from langchain_daytona_ws._guest.walk import RefusedError

Request = dict[str, Any]
Answer = dict[str, Any]
States = frozenset[tuple[int, int]]

LIST_TIMEOUT_S = 20.0


class S3Directories:
    """The operations on directories.

    Args:
        port: The bucket.
    """

    def __init__(self, port: ObjectStorePort) -> None:
        self._port = port
        self._lookup = Lookup(port)

    async def list_directory(self, request: Request) -> Answer:
        """List directories first, then files, each by name; hidden names included."""
        key = key_of(request["path"])
        directories, files, cut = await self._names(below(key))
        if not directories and not files:
            await self._lookup.require_directory(key)
        found = [(name, "dir", 0, 0) for name in sorted(directories)]
        found += [(n, "file", i.size_bytes, i.modified_ns) for n, i in sorted(files.items(), key=_name)]
        rows: list[list[object]] = []
        left = request["limit_bytes"]
        for row in found[: request["limit"]]:
            left -= len(row[0].encode()) + 40
            if left < 0:
                break
            rows.append([*row, None])
        more = cut or len(found) > len(rows)
        return {"path": key or ".", "entries": rows, "total": len(found), "more": more}

    async def _names(self, prefix: str) -> tuple[set[str], dict[str, ObjectInfo], bool]:
        """Return the directories and the files in a directory, and whether the listing is incomplete."""
        directories: set[str] = set()
        files: dict[str, ObjectInfo] = {}
        deadline = self._port.now() + LIST_TIMEOUT_S
        more: str | None = None
        pages = 0
        while True:
            page = await self._port.list_page(prefix, delimiter=True, more=more)
            pages += 1
            names = (name[len(prefix) : -1] for name in page.prefixes)
            directories.update(name for name in names if not is_hidden(name))
            files.update(
                (o.key[len(prefix) :], o) for o in page.objects if not is_hidden(o.key[len(prefix) :])
            )
            more = page.more
            cut = more is not None and (
                len(directories) + len(files) > MAX_ENTRIES
                or pages > MAX_ENTRIES // 100
                or self._port.now() > deadline
            )
            if more is None or cut:
                return directories, {n: o for n, o in files.items() if n not in directories}, cut

    async def glob(self, request: Request) -> Answer:
        """Find files, or directories for a pattern that ends in ``/``, newest first."""
        began = self._port.now()
        result = await self._matches(request)
        path = key_of(request["path"])
        for kind, pattern in [] if result["total"] or result["more"] else readings(request["pattern"], path):
            timeout_s = request["timeout_s"] - (self._port.now() - began)
            try:
                other = await self._matches(
                    {**request, "pattern": pattern, "limit": 1, "timeout_s": timeout_s}
                )
            except RefusedError:  # the other reading cannot be used either
                continue
            if other["paths"]:
                return {**result, "doubt": [kind, pattern, other["paths"][0][0]]}
        return {**result, "doubt": None}

    async def _matches(self, request: Request) -> Answer:
        try:
            literal, rest = split_literal(request["pattern"])
            pattern = Glob(rest)
        except GlobError as error:
            raise RefusedError("bad_glob", text=str(error)) from None
        if ".." in literal.split("/"):
            raise RefusedError("bad_glob", text="a pattern can't contain '..'")
        above = key_of(request["path"])
        base = key_of(request["path"] + "/" + literal)
        search = _Search(pattern)
        walk = Walk(self._port, below(base), search, self._port.now() + request["timeout_s"])
        beginning = _beginning(pattern)
        await walk.run(pattern.start(), beginning)
        if not search.has_entries:
            await self._need_base(above, base)
        found = sorted(search.found.values())
        rows: list[list[object]] = []
        left = request["limit_bytes"]
        for age, path, kind, size in found[: request["limit"]]:
            left -= len(path.encode()) + 40
            if left < 0:
                break
            rows.append([path, kind, size, -age])
        return {
            "paths": rows,
            "total": len(found),
            "more": walk.cut or len(rows) < len(found),
            "timed_out": walk.timed_out,
            "skipped": search.skipped[:20],
            "omitted": {},
        }

    async def _need_base(self, above: str, base: str) -> None:
        """Refuse a search in a missing path. The directories in the pattern may be missing."""
        try:
            await self._lookup.require_directory(base)
        except RefusedError:
            if base == above:
                raise
            await self._lookup.require_directory(above)


class _Search:
    """Collects the matches of a pattern. The state of a directory is the position in the pattern."""

    def __init__(self, pattern: Glob) -> None:
        self.found: dict[
            str, tuple[int, str, str, int]
        ] = {}  # path -> negative mtime in ns, path, kind, bytes
        self.skipped: list[str] = []
        self.has_entries = False
        self._pattern = pattern

    def directory(self, above: States, path: str, name: str) -> States | None:
        self.has_entries = True
        self.found.pop(path, None)
        after = self._pattern.step(above, name)
        if not after:
            return None
        if self._pattern.only_dirs and self._pattern.accepts(after):
            self.found[path] = (0, path, "dir", 0)
        if not self._pattern.goes_on(after):
            return None
        if name in SKIPPED and not self._pattern.names(name, above):
            self.skipped.append(path)
            return None
        return after

    def file(self, above: States, path: str, name: str, info: ObjectInfo) -> None:
        self.has_entries = True
        if not self._pattern.only_dirs and self._pattern.accepts(self._pattern.step(above, name)):
            self.found[path] = (-info.modified_ns, path, "file", info.size_bytes)


def _beginning(pattern: Glob) -> str:
    """Return the common beginning of the first names that the pattern can match."""
    beginnings = []
    for segments in pattern.alternatives:
        first = segments[0]
        if first is None:
            return ""
        text = ""
        for kind, value in first.tokens:
            if kind != "c":
                break
            text += str(value)
        beginnings.append(text)
    shortest, longest = min(beginnings), max(beginnings)
    same = 0
    while same < len(shortest) and shortest[same] == longest[same]:
        same += 1
    return shortest[:same]


def _name(item: tuple[str, ObjectInfo]) -> str:
    return item[0]
