"""List a directory and match globs on objects.

S3 has no modification times for directories: they are 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from langchain_daytona_ws._core.files.models import Doubt, Entry, GlobResult, Listing
from langchain_daytona_ws._core.s3.lookup import Lookup
from langchain_daytona_ws._core.s3.names import below, is_hidden, key_of
from langchain_daytona_ws._core.s3.store import ObjectInfo, ObjectStorePort
from langchain_daytona_ws._core.s3.walk import Walk
from langchain_daytona_ws._guest.doubt import readings
from langchain_daytona_ws._guest.match import Glob, GlobError, GlobWalk, compiled
from langchain_daytona_ws._guest.scan import MAX_ENTRIES
from langchain_daytona_ws._guest.walk import RefusedError

States = frozenset[tuple[int, int]]

LIST_TIMEOUT_S = 20.0


class S3Directories:
    """The operations on directories.

    Args:
        port: The bucket.
        lookup: Looks up paths in the same bucket.
    """

    def __init__(self, port: ObjectStorePort, lookup: Lookup) -> None:
        self._port = port
        self._lookup = lookup

    async def list_directory(self, key: str, *, limit: int, limit_bytes: int) -> Listing:
        """List directories first, then files, each by name; hidden names included."""
        directories, files, cut = await self._names(below(key))
        if not directories and not files:
            await self._lookup.require_directory(key)
        found = [Entry(name, "dir", 0, 0) for name in sorted(directories)]
        found += [_entry(name, info) for name, info in sorted(files.items(), key=_name)]
        entries = _fitting(found[:limit], limit_bytes)
        return Listing(key or ".", entries, len(found), cut or len(found) > len(entries))

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

    async def glob(
        self, key: str, pattern: str, *, limit: int, limit_bytes: int, timeout_s: float
    ) -> tuple[GlobResult, Doubt | None]:
        """Find files, or directories for a pattern that ends in ``/``, newest first."""
        deadline = self._port.now() + timeout_s
        result = await self._matches(key, pattern, limit, limit_bytes, deadline)
        for kind, other in [] if result.total or result.more else readings(pattern, key):
            try:
                entries = (await self._matches(key, other, 1, limit_bytes, deadline)).entries
            except RefusedError:  # the other reading cannot be used either
                continue
            if entries:
                return result, Doubt(kind, other, entries[0].name)
        return result, None

    async def _matches(
        self, key: str, pattern: str, limit: int, limit_bytes: int, deadline: float
    ) -> GlobResult:
        try:
            literal, glob = compiled(pattern)
        except GlobError as error:
            raise RefusedError("bad_glob", text=str(error)) from None
        base = key_of(f"{key}/{literal}".lstrip("/"))
        search = _Search(glob)
        walk = Walk(self._port, below(base), search, deadline)
        await walk.run(glob.start(), _beginning(glob))
        if not search.has_entries:
            await self._need_base(key, base)
        found = sorted(search.found.values(), key=lambda entry: (-entry.mtime_ns, entry.name))
        entries = _fitting(found[:limit], limit_bytes)
        return GlobResult(
            pattern=pattern,
            entries=entries,
            total=len(found),
            more=walk.cut or len(entries) < len(found),
            timed_out=walk.timed_out,
            skipped=tuple(search.walk.skipped[:20]),
        )

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

    def __init__(self, glob: Glob) -> None:
        self.found: dict[str, Entry] = {}
        self.has_entries = False
        self.walk = GlobWalk(glob)

    def directory(self, above: States, path: str, name: str) -> States | None:
        self.has_entries = True
        self.found.pop(path, None)  # a file of this name is hidden
        below_it, matches = self.walk.directory(above, path, name)
        if matches:
            self.found[path] = Entry(path, "dir", 0, 0)
        return below_it

    def file(self, above: States, path: str, name: str, info: ObjectInfo) -> None:
        self.has_entries = True
        if self.walk.file(above, name):
            self.found[path] = _entry(path, info)


def _entry(name: str, info: ObjectInfo) -> Entry:
    return Entry(name, "file", info.size_bytes, info.modified_ns)


def _fitting(entries: Iterable[Entry], limit_bytes: int) -> tuple[Entry, ...]:
    """Return the first entries, up to a size of their names."""
    fitting: list[Entry] = []
    for entry in entries:
        limit_bytes -= len(entry.name.encode()) + 40
        if limit_bytes < 0:
            break
        fitting.append(entry)
    return tuple(fitting)


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
