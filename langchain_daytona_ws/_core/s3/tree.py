"""Walk the keys below a directory in one listing; list a directory, and match globs.

S3 has no modification times for directories: the time in a result is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, Literal, Protocol, TypeVar

from langchain_daytona_ws._core.files.models import Entry, GlobQuery, GlobReading, GlobResult, Listing
from langchain_daytona_ws._core.s3.lookup import LAST, Lookup, below, is_invalid, key_of
from langchain_daytona_ws._core.s3.pages import Pages
from langchain_daytona_ws._core.s3.store import ObjectInfo, ObjectStorePort
from langchain_daytona_ws._core.transfers.models import FoundFile, Survey, too_many_files
from langchain_daytona_ws._guest.match import Glob, GlobError, GlobWalk, compiled, readings
from langchain_daytona_ws._guest.scan import MAX_ENTRIES
from langchain_daytona_ws._guest.walk import RefusedError

S = TypeVar("S")
States = frozenset[tuple[int, int]]

LIST_TIMEOUT_S = 20.0
SURVEY_TIMEOUT_S = 120.0
PAGE_S = 1.0  # minimum time to visit the keys of one page, even after the deadline


class Visitor(Protocol[S]):
    """Receives the entries of a walk. Paths are relative to the workspace root.

    ``above`` is the state that `directory` returned for the entry's directory.
    """

    def directory(self, above: S, path: str, name: str) -> S | None:
        """Handle a directory once, before its entries; return the state for its entries, or None to skip them."""
        ...

    def file(self, above: S, path: str, name: str, info: ObjectInfo) -> None:
        """Handle a file. A later directory of the same path hides the file."""
        ...


class Walk(Generic[S]):
    """A walk through the keys below ``base``: a directory with its ``/``, or ``""``.

    ``is_incomplete`` is True if the walk ended early: at the limit of entries or at the deadline. ``timed_out`` is True
    if it ended at the deadline, which is a time on the port's clock.
    """

    def __init__(self, port: ObjectStorePort, base: str, visitor: Visitor[S], deadline: float) -> None:
        self.is_incomplete = self.timed_out = False
        self.keys = 0  # number of listed keys, including hidden keys
        self._port = port
        self._base = base
        self._visitor = visitor
        self._deadline = deadline
        self._skipped = ""  # the latest skipped directory, with its "/"
        self._above: list[tuple[str, S]] = []  # the directories of the latest key, with their states

    async def run(self, start: S, first_prefix: str = "") -> None:
        """List the keys, and pass their directories and files to the visitor.

        ``start`` is the state of the base. Only names in the base that begin with ``first_prefix`` are listed.
        """
        listing = Pages(self._port, self._base + first_prefix)
        start_after = ""
        pages = 0
        while True:
            page = await listing.next(start_after)
            await self._port.offload(partial(self._visit_all, page.objects, start))
            if self.is_incomplete:
                return
            pages += 1
            self.keys += len(page.objects)
            if page.more is None:
                return
            self.timed_out = self._port.now() > self._deadline
            self.is_incomplete = self.timed_out or max(self.keys, pages) > MAX_ENTRIES
            if self.is_incomplete:
                return
            last = page.objects[-1].key if page.objects else ""
            if self._skipped and last.startswith(self._skipped) and last < self._skipped + LAST:
                start_after = self._skipped + LAST
            else:
                start_after = ""

    def _visit_all(self, page: Sequence[ObjectInfo], start: S) -> None:
        """Visit the keys of a page, outside the event loop: a glob may take milliseconds for one name."""
        deadline = max(self._deadline, self._port.now() + PAGE_S)
        for info in page:
            if self._port.now() > deadline:
                self.is_incomplete = self.timed_out = True
                return
            self._visit(info, start)

    def _visit(self, info: ObjectInfo, start: S) -> None:
        if self._skipped:
            if info.key.startswith(self._skipped):
                return
            self._skipped = ""
        *names, last = info.key[len(self._base) :].split("/")
        state = self._enter(names, start)
        if state is not None and not is_invalid(last):
            self._visitor.file(state, info.key, last, info)

    def _enter(self, names: list[str], start: S) -> S | None:
        """Pass a path's new directories to the visitor; return the last one's state, or None if one is skipped."""
        common = 0
        while common < min(len(names), len(self._above)) and names[common] == self._above[common][0]:
            common += 1
        del self._above[common:]
        state = self._above[-1][1] if self._above else start
        for count in range(common, len(names)):
            path = self._base + "/".join(names[: count + 1])
            below = None if is_invalid(names[count]) else self._visitor.directory(state, path, names[count])
            if below is None:
                self._skipped = path + "/"
                return None
            self._above.append((names[count], below))
            state = below
        return state


async def list_directory(lookup: Lookup, key: str, *, limit: int, limit_bytes: int) -> Listing:
    """List directories, then files, both sorted by name. Names that begin with a dot are included."""
    directories, files, cut = await _names(lookup, below(key))
    if not directories and not files:
        await lookup.require_directory(key)
    found = [Entry(name, "dir", 0, 0) for name in sorted(directories)]
    found += [_entry(name, info) for name, info in sorted(files.items(), key=_name)]
    entries = _fitting(found[:limit], limit_bytes)
    return Listing(key or ".", entries, len(found), cut or len(found) > len(entries))


async def _names(lookup: Lookup, prefix: str) -> tuple[set[str], dict[str, ObjectInfo], bool]:
    """Return the directories and the files in a directory, and whether the listing is incomplete."""
    directories: set[str] = set()
    files: dict[str, ObjectInfo] = {}
    deadline = lookup.port.now() + LIST_TIMEOUT_S
    listing = Pages(lookup.port, prefix, delimiter=True)
    pages = 0
    while True:
        page = await listing.next()
        pages += 1
        names = (name[len(prefix) : -1] for name in page.prefixes)
        directories.update(name for name in names if not is_invalid(name))
        files.update((o.key[len(prefix) :], o) for o in page.objects if not is_invalid(o.key[len(prefix) :]))
        more = page.more
        cut = more is not None and (
            len(directories) + len(files) > MAX_ENTRIES
            or pages > MAX_ENTRIES // 100
            or lookup.port.now() > deadline
        )
        if more is None or cut:
            return directories, {n: o for n, o in files.items() if n not in directories}, cut


async def survey(lookup: Lookup, key: str) -> Survey:
    """List a file, or all files below a directory, for a download."""
    info = await lookup.file_at(key) if key else None
    if info is not None and not await lookup.is_directory(key):
        return Survey(key, False, (FoundFile("", info.size_bytes),))
    found = _Files(below(key))
    walk = Walk(lookup.port, below(key), found, lookup.port.now() + SURVEY_TIMEOUT_S)
    await walk.run(True)
    if walk.is_incomplete:
        raise too_many_files("download")
    if not walk.keys:
        await lookup.require_directory(key)
    files = tuple(FoundFile(name, size) for name, size in found.files.items())
    return Survey(key or ".", True, files, tuple(sorted(found.empty)))


class _Files:
    """Collects the files below a directory."""

    def __init__(self, base: str) -> None:
        self.files: dict[str, int] = {}
        self.empty: set[str] = set()  # directories without entries
        self._base = base

    def directory(self, above: Literal[True], path: str, name: str) -> Literal[True]:
        self._mark_parent_nonempty(path)
        self.files.pop(path[len(self._base) :], None)  # the directory hides a file of the same name
        self.empty.add(path[len(self._base) :])
        return True

    def file(self, above: Literal[True], path: str, name: str, info: ObjectInfo) -> None:
        self._mark_parent_nonempty(path)
        self.files[path[len(self._base) :]] = info.size_bytes

    def _mark_parent_nonempty(self, path: str) -> None:
        self.empty.discard(path[len(self._base) :].rpartition("/")[0])


async def glob(lookup: Lookup, key: str, query: GlobQuery) -> tuple[GlobResult, GlobReading | None]:
    """Find files, or directories for a pattern that ends in ``/``, newest first."""
    deadline = lookup.port.now() + query.timeout_s
    result = await _matches(lookup, key, query, deadline)
    for kind, other in [] if result.total or result.more else readings(query.pattern, key):
        try:
            found = await _matches(lookup, key, replace(query, pattern=other, limit=1), deadline)
        except RefusedError:  # this interpretation of the glob is not usable either
            continue
        if found.entries:
            return result, GlobReading(kind, other, found.entries[0].name)
    return result, None


async def _matches(lookup: Lookup, key: str, query: GlobQuery, deadline: float) -> GlobResult:
    try:
        literal, pattern = compiled(query.pattern)
    except GlobError as error:
        raise RefusedError("bad_glob", text=str(error)) from None
    base = key_of(f"{key}/{literal}".lstrip("/"))
    search = _Search(pattern)
    walk = Walk(lookup.port, below(base), search, deadline)
    await walk.run(pattern.start(), _beginning(pattern))
    if not search.has_entries:
        await _require_base(lookup, key, base)
    found = sorted(search.found.values(), key=lambda entry: (-entry.mtime_ns, entry.name))
    entries = _fitting(found[: query.limit], query.limit_bytes)
    return GlobResult(
        pattern=query.pattern,
        entries=entries,
        total=len(found),
        more=walk.is_incomplete or len(entries) < len(found),
        timed_out=walk.timed_out,
        skipped=tuple(search.walk.skipped[:20]),
    )


async def _require_base(lookup: Lookup, above: str, base: str) -> None:
    """Refuse a search if the searched directory ``above`` is missing. Directories in the pattern may be missing."""
    try:
        await lookup.require_directory(base)
    except RefusedError:
        if base == above:
            raise
        await lookup.require_directory(above)


class _Search:
    """Collects the matches of a pattern. The state of a directory is the set of positions in the pattern."""

    def __init__(self, glob: Glob) -> None:
        self.found: dict[str, Entry] = {}
        self.has_entries = False
        self.walk = GlobWalk(glob)

    def directory(self, above: States, path: str, name: str) -> States | None:
        self.has_entries = True
        self.found.pop(path, None)  # the directory hides a file of the same name
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
    """Return the first entries, as many as fit into ``limit_bytes``."""
    fitting: list[Entry] = []
    for entry in entries:
        limit_bytes -= len(entry.name.encode()) + 40
        if limit_bytes < 0:
            break
        fitting.append(entry)
    return tuple(fitting)


def _beginning(pattern: Glob) -> str:
    """Return the characters with which each matching path must begin."""
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
