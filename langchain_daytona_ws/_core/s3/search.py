"""Search the contents of objects within limits.

Searches that are too large or too slow, and expressions that only ripgrep supports, need the sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from langchain_daytona_ws._core.files import models
from langchain_daytona_ws._core.s3.expression import Expression, NeedsRipgrepError
from langchain_daytona_ws._core.s3.lookup import Lookup, below, parent_of
from langchain_daytona_ws._core.s3.store import (
    ObjectInfo,
    ObjectStorePort,
    StoredObject,
    StoreFault,
    StoreFaultKind,
)
from langchain_daytona_ws._core.s3.tree import Walk
from langchain_daytona_ws._guest import text
from langchain_daytona_ws._guest.match import SKIPPED, GlobError
from langchain_daytona_ws._guest.omitted import BINARY, BINARY_MATCH, NAMED, UTF16, is_large_binary
from langchain_daytona_ws._guest.rows import Filter, Rows, Selection
from langchain_daytona_ws._guest.walk import RefusedError

MAX_FILES = 500
MAX_TOTAL_BYTES = 32 << 20
BATCH_FILES = 64
BATCH_BYTES = 8 << 20


async def grep(
    lookup: Lookup, key: str, query: models.GrepQuery
) -> tuple[models.GrepResult, models.GlobReading | None]:
    """Search the contents of objects.

    Raises:
        RefusedError: With a code of the guest's search.
        NeedsSandbox: The search must run in the sandbox.
        StoreFault: S3 failed.
    """
    if not query.pattern or "\n" in query.pattern or "\0" in query.pattern:
        raise RefusedError("bad_pattern", text="the pattern must be one line, and not empty")
    try:
        glob = Filter(query.glob) if query.glob else None
    except GlobError as error:
        raise RefusedError("bad_glob", text=str(error)) from None
    deadline = lookup.port.now() + query.timeout_s
    base = below(key)
    selection = Selection(glob, base)
    found = _Candidates(base, selection)
    walk = Walk(lookup.port, base, found, deadline)
    await walk.run(True)
    if walk.is_incomplete:
        raise models.NeedsSandbox("the directory has too many names")
    files = found.in_order()
    is_file = bool(key) and not walk.keys
    if is_file:
        base = below(parent_of(key))
        selection = Selection(glob, base)
        info = await _file(lookup, key)
        files = [info] if selection.includes(key[len(base) :]) else []
    expression = _expression(query)  # last, because a refused search needs no expression
    rows = Rows(base, query.limit, query.limit_bytes)
    search = _ContentSearch(
        expression, rows, query, lookup.port, deadline, base_length=len(base), is_file=is_file
    )
    await _search_batches(lookup, files, search, deadline)
    result = models.GrepResult(
        pattern=query.pattern,
        mode=query.mode,
        rows=tuple(_row(query.mode, *row) for row in rows.sorted()),
        more=rows.full,
        timed_out=False,
        skipped=tuple(base + name for name in SKIPPED if name in selection.skipped),
        omitted=tuple(
            models.Omitted(reason, len(paths), tuple(sorted(paths)[:NAMED]))
            for reason, paths in search.omitted.items()
            if paths
        ),
    )
    reading = selection.reading(matched=bool(files))
    return result, models.GlobReading(*reading) if reading else None


async def _file(lookup: Lookup, key: str) -> ObjectInfo:
    """Return the file at ``key``, the only file to search."""
    info = await lookup.file_at(key)
    if info is None:
        raise await lookup.not_found(key)
    if info.size_bytes > MAX_TOTAL_BYTES:
        raise models.NeedsSandbox("the file is too large")
    return info


async def _search_batches(
    lookup: Lookup, files: Sequence[ObjectInfo], search: _ContentSearch, deadline: float
) -> None:
    for batch in _batches(files):
        if search.rows.full:
            return
        largest = max(info.size_bytes for info in batch)
        got = await lookup.port.get_many(
            [info.key for info in batch], max_bytes=largest, within_s=max(deadline - lookup.port.now(), 0)
        )
        contents = [content for content in map(_loaded, got) if content is not None]
        await lookup.port.offload(partial(search.search, contents))


class _Candidates:
    """Collects the files to search, within the limits."""

    def __init__(self, base: str, selection: Selection) -> None:
        self._base = base
        self._selection = selection
        self._found: dict[str, ObjectInfo] = {}
        self._bytes = 0

    def directory(self, _above: bool, path: str, name: str) -> bool | None:
        hidden = self._found.pop(path, None)
        self._bytes -= hidden.size_bytes if hidden else 0
        return self._selection.enters(path[len(self._base) :], name) or None

    def file(self, _above: bool, path: str, _name: str, info: ObjectInfo) -> None:
        if not self._selection.includes(path[len(self._base) :]):
            return
        self._found[path] = info
        self._bytes += info.size_bytes
        if len(self._found) > MAX_FILES or self._bytes > MAX_TOTAL_BYTES:
            raise models.NeedsSandbox("there is too much to search")

    def in_order(self) -> list[ObjectInfo]:
        """Return the files in the order in which ripgrep reports them."""
        return sorted(self._found.values(), key=lambda info: info.key.encode().split(b"/"))


class _ContentSearch:
    """Searches contents for one call of `grep`, batch by batch, outside the event loop."""

    def __init__(
        self,
        expression: Expression,
        rows: Rows,
        query: models.GrepQuery,
        port: ObjectStorePort,
        deadline: float,
        *,
        base_length: int,
        is_file: bool,
    ) -> None:
        self.rows = rows
        self.omitted: dict[models.OmittedReason, list[str]] = {BINARY_MATCH: [], BINARY: [], UTF16: []}
        self._expression = expression
        self._query = query
        self._now = port.now
        self._deadline = deadline
        self._base_length = base_length  # each key begins with the base
        self._is_file = is_file

    def search(self, contents: Sequence[StoredObject]) -> None:
        try:
            for stored in contents:
                self._check()
                if self.rows.full:
                    return
                self._search_file("./" + stored.info.key[self._base_length :], stored.data or b"")
        except NeedsRipgrepError:
            raise models.NeedsSandbox("the expression needs ripgrep") from None

    def _search_file(self, path: str, data: bytes) -> None:
        name, kind = path.encode(), text.binary_kind(data)
        is_unmarked = kind in text.UNMARKED_UTF16
        if (is_unmarked and self._is_file) or (is_large_binary(kind, len(data)) and not self._is_file):
            self.omitted[UTF16 if is_unmarked else BINARY].append(self.rows.shown_path(name))
            return
        content = _as_utf8(data)
        lines = self._expression.lines(content, self._check)
        if kind not in ("", text.MARKED_UTF16):
            try:
                reason: models.OmittedReason | None = BINARY_MATCH if next(lines, None) is not None else None
            except NeedsRipgrepError:  # do not start a sandbox for a binary file
                reason = BINARY
            if reason is not None:
                self.omitted[reason].append(self.rows.shown_path(name))
        elif self._query.mode == "files_with_matches":
            if next(lines, None) is not None:
                self.rows.add(name)
        elif self._query.mode == "count":
            count = sum(1 for _ in lines)
            if count:
                self.rows.add(name, count)
        else:
            for number, line, match in _with_context(content, lines, self._query.before, self._query.after):
                self.rows.add_line(name, number, line, match)
                if self.rows.full:
                    return

    def _check(self) -> None:
        if self._now() > self._deadline:
            raise models.NeedsSandbox("the search takes too long")


def _with_context(
    data: bytes, lines: Iterator[tuple[int, int, int, int]], before: int, after: int
) -> Iterator[tuple[int, bytes, int | None]]:
    """Yield (line number, line, start of the match) for matching lines and lines of context, in order.

    In a line of context, the start is None.
    """
    shown, behind = 0, 0  # the number of the last line shown, and the offset after it
    left = 0  # number of lines still to be shown after a match
    for number, start, end, match in lines:
        while left and shown + 1 < number:
            line_end = data.find(b"\n", behind)
            yield shown + 1, data[behind:line_end], None
            shown, behind, left = shown + 1, line_end + 1, left - 1
        first, first_number = start, number
        while first_number > max(number - before, shown + 1):
            first = data.rfind(b"\n", 0, first - 1) + 1
            first_number -= 1
        while first_number < number:
            line_end = data.find(b"\n", first)
            yield first_number, data[first:line_end], None
            first, first_number = line_end + 1, first_number + 1
        yield number, data[start:end], match - start
        shown, behind, left = number, end + 1, after
    while left and behind < len(data):
        line_end = data.find(b"\n", behind)
        line_end = len(data) if line_end < 0 else line_end
        yield shown + 1, data[behind:line_end], None
        shown, behind, left = shown + 1, line_end + 1, left - 1


def _as_utf8(data: bytes) -> bytes:
    """Remove a UTF-8 byte order mark, and convert UTF-16 with a byte order mark to UTF-8, as ripgrep does."""
    if data.startswith(text.UTF16_BOMS):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(text.BOM)


def _row(mode: models.OutputMode, path: str, *values: Any) -> models.GrepRow:
    match mode:
        case "files_with_matches":
            return models.GrepRow(path)
        case "count":
            return models.GrepRow(path, count=values[0])
        case "content":
            line, is_match, line_text, *column = values
            return models.GrepRow(path, line, is_match, line_text, column=column[0] if column else 0)


def _expression(query: models.GrepQuery) -> Expression:
    try:
        return Expression(query.pattern, ignore_case=query.ignore_case)
    except NeedsRipgrepError:
        raise models.NeedsSandbox("the expression needs ripgrep") from None


def _batches(files: Sequence[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    batch: list[ObjectInfo] = []
    size = 0
    for info in files:
        if batch and (len(batch) >= BATCH_FILES or size + info.size_bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(info)
        size += info.size_bytes
    if batch:
        yield batch


def _loaded(got: StoredObject | StoreFault | None) -> StoredObject | None:
    """Return a file's content; None if the file was deleted or is a symlink."""
    if got is None:
        raise models.NeedsSandbox("the search takes too long")
    if isinstance(got, StoreFault):
        if got.kind is StoreFaultKind.MISSING:
            return None
        raise got
    if got.data is None:
        raise models.NeedsSandbox("a file has grown")
    return got
