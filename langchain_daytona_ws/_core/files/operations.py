"""File operations of a session: check arguments, record hashes of read content, add hints to errors and results."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from langchain_daytona_ws._core.files import models
from langchain_daytona_ws._core.files.errors import edit_error, file_error
from langchain_daytona_ws._core.files.media import MAX_SIDE_PIXELS, MEDIA_BYTES, Media, media_of
from langchain_daytona_ws._core.files.search_hints import glob_hint, grep_hint, unsupported
from langchain_daytona_ws._core.id_factory import random_id
from langchain_daytona_ws._core.limits import GLOB_LIMIT, GREP_LIMIT, LIST_LIMIT, LOG_LIMIT_BYTES, check_range
from langchain_daytona_ws._core.paths import (
    candidates,
    is_log,
    outside,
    shown,
    shown_name,
    with_slashes,
    workspace_path,
    workspace_pattern,
)
from langchain_daytona_ws._guest.edit import EditError, apply_edit
from langchain_daytona_ws._guest.text import PAGE_LINES
from langchain_daytona_ws.errors import (
    EditRefused,
    FileError,
    FileMissing,
    FileUnsuitable,
    PathRefused,
    WorkspaceError,
)

T = TypeVar("T")

_bad_argument = partial(FileError, code="bad_argument")

MAX_BYTES = 10 << 20
EDIT_BYTES = 512 << 10
MAX_ROWS = 5000
MAX_CONTEXT = 100
# Of a regular expression: a megabyte takes seconds to compile, and is too long for ripgrep.
PATTERN_BYTES = 16_384
SEARCH_TIMEOUT_S = 20
LARGEST_BYTES = 128 << 20  # largest file that `fetch` reads by default


class FileOperations:
    """The file operations of a session. They record the hash of each content that the session has read.

    Args:
        sandbox: The backend for command logs and for searches that need ripgrep. None: use ``files``.
        root: The workspace directory in the sandbox, as ``pwd`` prints it.
        limit_bytes: Maximum number of bytes of text in the result of `read`, `list`, `glob` or `grep`.
        read_hashes: The hashes of read content, path → SHA-256, if several objects share them.
        new_key: Returns the idempotency key of a change whose caller passes no key.
        suggests_similar: True: the error for a missing path names similar paths, at the cost of one more request.
        batches: Reads and writes several files in one request; None if ``files`` has no batches.
    """

    def __init__(
        self,
        files: models.FileBackend,
        sandbox: models.FileBackend | None = None,
        *,
        root: str,
        limit_bytes: int = 65536,
        read_hashes: dict[str, str] | None = None,
        new_key: Callable[[], str] = random_id,
        suggests_similar: bool = True,
        batches: models.BatchBackend | None = None,
    ) -> None:
        self._files = files
        self._sandbox = sandbox
        self._root = root
        self._limit_bytes = limit_bytes
        self._new_key = new_key
        self._suggests_similar = suggests_similar
        self._batches = batches
        # Path → SHA-256 of the content that this session last read or wrote. No lock: a single get, set or pop is
        # atomic in CPython, and the backend compares the hash with the file itself.
        self._read_hashes: dict[str, str] = {} if read_hashes is None else read_hashes

    async def read(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> models.FileText:
        """Read a page of numbered lines, from the 1-based line ``offset``."""
        check_range("offset", offset, 1, 1 << 40, _bad_argument)
        check_range("limit", limit, 1, 1 << 40, _bad_argument)
        location, files = await self._readable(path)
        max_bytes = LOG_LIMIT_BYTES if is_log(location) else MAX_BYTES
        async with self._suggesting_similar(location):
            result = await files.read(
                location, offset=offset, limit=limit, limit_bytes=self._limit_bytes, max_bytes=max_bytes
            )
        self._remember_read(location, result)
        return replace(result, path=location)

    async def media(self, path: str, refusal: FileUnsuitable) -> tuple[Media, models.FileContent]:
        """Read a complete image or PDF document that `read` has refused.

        Raises:
            FileUnsuitable: The file is too large, damaged, or now another kind of file.
        """
        facts = {name: refusal.context[name] for name in ("what", "bytes")} | {"max_bytes": MEDIA_BYTES}
        location, files = await self._readable(path)
        size = facts["bytes"]
        if not isinstance(size, int) or size > MEDIA_BYTES:
            raise file_error(location, "read", "media_too_large", facts)
        async with self._suggesting_similar(location):
            content = await files.fetch(location, max_bytes=MEDIA_BYTES)
        found = media_of(content.data)
        if found is None:
            raise file_error(location, "read", "media_damaged", {**facts, "bytes": len(content.data)})
        if (
            found.width is not None
            and found.height is not None
            and max(found.width, found.height) > MAX_SIDE_PIXELS
        ):
            pixels = {"width": found.width, "height": found.height, "max_side_pixels": MAX_SIDE_PIXELS}
            raise file_error(location, "read", "media_too_large", {**facts, **pixels})
        self._remember_read(location, content)
        return found, replace(content, path=location)

    async def view(self, path: str, query: models.ViewQuery) -> models.FileView:
        """Read lines without numbers, or a whole binary file."""
        location, files = await self._readable(path)
        async with self._suggesting_similar(location):
            result = await files.view(location, query)
        self._remember_read(location, result)
        return result

    async def fetch(self, path: str, *, max_bytes: int = LARGEST_BYTES) -> bytes:
        """Read a whole file.

        Raises:
            FileError: The path is refused or is not a file. Or the file has over ``max_bytes``, or it changed in each
                of three attempts.
        """
        location, files = await self._readable(path)
        async with self._suggesting_similar(location):
            result = await files.fetch(location, max_bytes=max_bytes)
        self._remember_read(location, result)
        return result.data

    async def fetch_many(self, paths: Sequence[str]) -> list[bytes | WorkspaceError]:
        """Read whole files; return each file's content or error. Files in the sandbox are read in batches.

        If the request for a batch fails, its error is raised.
        """
        if self._batches is None or len(paths) < 2:
            return [await as_result(self.fetch(path)) for path in paths]
        found: list[bytes | WorkspaceError | None] = [None] * len(paths)
        locations: dict[int, str] = {}
        for number, path in enumerate(paths):
            location = await as_result(self._resolve(path))
            if isinstance(location, WorkspaceError):  # the path may be a log, which `fetch` can read
                found[number] = await as_result(self.fetch(path))
            else:
                locations[number] = location
        results = await self._batches.fetch_many(list(locations.values()), max_bytes=LARGEST_BYTES)
        for (number, location), result in zip(locations.items(), results, strict=True):
            if isinstance(result, models.FileContent):
                self._remember(location, result.path, result.sha256)
                found[number] = result.data
            else:
                found[number] = result
        return [result for result in found if result is not None]

    async def overwrite_many(self, files: Sequence[tuple[str, bytes]]) -> list[WorkspaceError | None]:
        """Write whole files, also over existing ones; return the error of each, or None.

        Files in the sandbox are written in batches. If the request for a batch fails, its files and all files after
        them get its error.
        """
        results: list[WorkspaceError | None] = [None] * len(files)
        if self._batches is None or len(files) < 2:
            for number, (path, data) in enumerate(files):
                written = await as_result(self.write(path, data, overwrite=True))
                results[number] = written if isinstance(written, WorkspaceError) else None
            return results
        queries: dict[int, tuple[str, models.WriteQuery]] = {}
        for number, (path, data) in enumerate(files):
            try:
                location = await self._writable(path)
            except WorkspaceError as error:
                results[number] = error
            else:
                queries[number] = (location, models.WriteQuery(data, True, None, False, MAX_BYTES))
        answers = await self._batches.write_many(list(queries.values()), new_key=self._new_key)
        for (number, (location, _)), answer in zip(queries.items(), answers, strict=True):
            if isinstance(answer, models.FileWritten):
                self._remember(location, answer.path, answer.sha256)
            else:
                results[number] = answer
        return results

    async def write(
        self, path: str, content: str | bytes, *, overwrite: bool = False, key: str | None = None
    ) -> models.FileWritten:
        """Write a whole file, and the directories above it.

        Without ``overwrite``, an existing file is replaced only if its content is still what this session last read or
        wrote. Bytes are written unchanged. If ``content`` is a string, the byte order mark of the old text is kept. Its
        CRLF line ends are kept if ``content`` has line feeds only. Repeated calls with the same ``key`` make one
        change.
        """
        location = await self._writable(path)
        is_text = isinstance(content, str)
        data = _encoded(content, "content") if isinstance(content, str) else bytes(content)
        expected = None if overwrite else self._read_hashes.get(location)
        query = models.WriteQuery(data, overwrite, expected, is_text, MAX_BYTES)
        async with self._suggesting_similar(location):
            result = await self._files.write(location, query, key=key or self._new_key())
        self._remember(location, result.path, result.sha256)
        return replace(result, path=location)

    async def edit(
        self,
        path: str,
        old_string: str,
        new_string: str,
        *,
        replace_all: bool = False,
        exact: bool = False,
        key: str | None = None,
    ) -> models.FileEdited:
        """Replace ``old_string``, which must occur exactly once. With ``replace_all``, replace every occurrence.

        If ``old_string`` does not occur, but exactly one text looks like it, this text is replaced. With ``exact``, the
        edit is refused instead.
        """
        location = await self._resolve(path)
        _check_edit(old_string, new_string)
        query = models.EditQuery(old_string, new_string, replace_all, exact, MAX_BYTES)
        async with self._suggesting_similar(location):
            result = await self._files.edit(location, query, key=key or self._new_key())
        # Without lines, the result is of an earlier attempt, and its hash of the old content is invalid.
        if result.lines:
            self._remember_edit(location, result.path, result.before_sha256, result.sha256)
        return replace(result, path=location)

    async def replace_text(
        self, path: str, old: str, new: str, *, replace_all: bool, key: str | None = None
    ) -> int:
        """Replace text like `edit`, with strings of any size; return the number of replacements.

        If the strings are long, the file may have `VIEWED_BYTES`, which is more than for `edit`: Deep Agents appends to
        its history file by replacing the whole text. Text that only looks like ``old`` is not replaced, because the
        result cannot report the differences.
        """
        if len(old) + len(new) <= EDIT_BYTES // 4:  # a character has at most four bytes
            return (await self.edit(path, old, new, replace_all=replace_all, exact=True, key=key)).count
        location = await self._resolve(path)
        async with self._suggesting_similar(location):
            before = await self._files.fetch(location, max_bytes=models.VIEWED_BYTES)
        try:
            edited = apply_edit(before.data, old, new, replace_all, models.VIEWED_BYTES, exact=True)
        except EditError as error:
            raise edit_error(location, error) from None
        # Replace only the content that was downloaded: a change by another call must not be lost.
        query = models.WriteQuery(edited.data, False, before.sha256, False, MAX_BYTES)
        async with self._suggesting_similar(location):
            result = await self._files.write(location, query, key=key or self._new_key())
        self._remember_edit(location, result.path, before.sha256, result.sha256)
        return len(edited.ranges)

    async def create(self, path: str, content: str | bytes) -> None:
        """Write a new file. Refuse if a file with another content exists, even if this session has read that file."""
        self._read_hashes.pop(await self._resolve(path), None)
        await self.write(path, content)

    async def list(self, path: str = ".", *, limit: int = LIST_LIMIT) -> models.Listing:
        """List one directory, directories first."""
        check_range("limit", limit, 1, MAX_ROWS, _bad_argument)
        location = await self._resolve(path)
        async with self._suggesting_similar(location):
            return await self._files.list(location, limit=limit, limit_bytes=self._limit_bytes)

    async def glob(self, pattern: str, *, path: str = ".", limit: int = GLOB_LIMIT) -> models.GlobResult:
        """Find files below ``path``, newest first. A ``pattern`` that ends in ``/`` finds directories.

        The returned paths are relative to the workspace root.
        """
        check_range("limit", limit, 1, MAX_ROWS, _bad_argument)
        location = await self._resolve(path)
        relative, absolute = workspace_pattern(pattern, self._root)
        start = "." if absolute else location
        query = models.GlobQuery(relative, limit, self._limit_bytes, SEARCH_TIMEOUT_S)
        async with self._suggesting_similar(start):
            result, reading = await self._files.glob(start, query)
        return result if result.entries or result.more else replace(result, hint=glob_hint(pattern, reading))

    async def grep(
        self,
        pattern: str,
        *,
        path: str = ".",
        glob: str | None = None,
        output_mode: models.OutputMode = "files_with_matches",
        before: int = 0,
        after: int = 0,
        ignore_case: bool = False,
        limit: int = GREP_LIMIT,
    ) -> models.GrepResult:
        """Search for a regular expression in a file or below a directory.

        ``glob`` selects the files to search. ``before`` and ``after`` are numbers of lines of context, in mode
        ``content``. ``limit`` is the maximum number of rows.
        """
        check_range("limit", limit, 1, MAX_ROWS, _bad_argument)
        check_range("before", before, 0, MAX_CONTEXT, _bad_argument)
        check_range("after", after, 0, MAX_CONTEXT, _bad_argument)
        if output_mode not in ("files_with_matches", "content", "count"):
            raise FileError("output_mode must be files_with_matches, content or count.", code="bad_argument")
        location, files = await self._readable(path)
        if len(_encoded(pattern, "pattern")) > PATTERN_BYTES:
            raise FileError(
                f"The regular expression has more than {PATTERN_BYTES:,} bytes. Search for a part of it.",
                code="bad_pattern",
                op="grep",
            )
        query = models.GrepQuery(
            pattern,
            self._filter(glob, location) if glob else None,
            output_mode,
            before,
            after,
            ignore_case,
            limit,
            self._limit_bytes,
            SEARCH_TIMEOUT_S,
        )
        try:
            async with self._suggesting_similar(location):
                result, reading = await self._grep(files, location, query)
        except FileError as error:
            if error.code != "bad_pattern":
                raise
            raise FileError(f"{error.message}{unsupported(pattern)}", code=error.code, op=error.op) from None
        return (
            result if result.rows or result.more else replace(result, hint=grep_hint(pattern, glob, reading))
        )

    async def _grep(
        self, files: models.FileBackend, location: str, query: models.GrepQuery
    ) -> tuple[models.GrepResult, models.GlobReading | None]:
        try:
            return await files.grep(location, query)
        except models.NeedsSandbox:
            if self._sandbox is None:
                raise
        return await self._sandbox.grep(location, query)

    async def delete(self, path: str, *, key: str | None = None) -> models.FileDeleted:
        """Delete a file, a symlink (not its target), or an empty directory."""
        location = await self._resolve(path)
        async with self._suggesting_similar(location):
            result = await self._files.delete(location, key=key or self._new_key())
        self._read_hashes.pop(location, None)
        return result

    async def check_change(self, path: str, *, is_file: bool, edit: tuple[str, str] | None = None) -> None:
        """Refuse a change that cannot succeed, whatever the workspace contains.

        With ``is_file``, ``path`` must be that of a file. ``edit`` has the texts to find and to insert.

        Raises:
            PathRefused: The path is outside the workspace or not a path; with ``is_file``, also if it is the workspace
                or ends with ``/``.
            EditRefused: The text to find is empty, or the two texts are identical or too large together.
            FileError: A text is not valid Unicode.
        """
        location = await self._resolve(path)
        if is_file:
            _check_file(path, location)
        if edit is not None:
            _check_edit(*edit)

    async def _writable(self, path: str) -> str:
        """Return a path for a write, relative to the workspace; refuse a path that is probably a mistake."""
        location = await self._resolve(path)
        _check_file(path, location)
        await self._check_backslashes(path, location)
        return location

    async def _readable(self, path: str) -> tuple[str, models.FileBackend]:
        """Return the path, and the backend that reads it. The path of a command's log is allowed."""
        location = await self._resolve(path, log=True)
        return location, self._sandbox if self._sandbox and is_log(location) else self._files

    async def _resolve(self, path: str, *, log: bool = False) -> str:
        """Return a path relative to the workspace. With ``log``, also allow the absolute path of a command's log."""
        try:
            return workspace_path(path, self._root)
        except PathRefused as refusal:
            if refusal.code != "path_outside":
                raise
            if is_log(path) and log:
                return path
            if is_log(path):
                raise PathRefused(
                    f"{path} is the log of a command: it can be read and searched only.", code="path_outside"
                ) from None
            found = await self._first_existing(candidates(path, self._root))
            if found is None:
                raise
        raise outside(path, self._root, found)

    async def _check_backslashes(self, path: str, location: str) -> None:
        """Refuse the path of a new file if it has unquoted backslashes: slashes were probably intended."""
        slashes = with_slashes(path, self._root)
        if slashes is not None and location not in await self._files.exists([location]):
            raise PathRefused(
                f"{shown(location)} does not exist, and a backslash would be a part of its name. Use {shown(slashes)}, "
                r"with slashes; for a new name with a backslash in it, quote the path as $'a\\b'.",
                code="path_backslash",
                op="write",
            )

    async def _first_existing(self, paths: Sequence[str]) -> str | None:
        """Return the first path that exists; None if no path exists or the request fails."""
        if not paths:
            return None
        try:
            found = await self._files.exists(paths)
        except WorkspaceError:  # the caller raises an error if nothing is found
            return None
        return next((path for path in paths if path in found), None)

    @asynccontextmanager
    async def _suggesting_similar(self, location: str) -> AsyncIterator[None]:
        """Add similar paths to the error for a missing path."""
        try:
            yield
        except FileMissing as error:
            if not self._suggests_similar or is_log(location):
                raise
            try:
                similar = await self._files.similar(location)
            except WorkspaceError:  # the error for the missing path is more important
                raise error from None
            raise file_error(location, error.op, error.code, error.context, similar) from None

    def _remember_read(
        self, location: str, result: models.FileText | models.FileView | models.FileContent
    ) -> None:
        if not is_log(location):
            self._remember(location, result.path, result.sha256)

    def _remember(self, location: str, real_path: str, sha256: str) -> None:
        """Record the hash under the requested path, and under the path that its symlinks lead to."""
        self._read_hashes[location] = sha256
        self._read_hashes[real_path] = sha256

    def _remember_edit(self, location: str, real_path: str, before: str, after: str) -> None:
        # If other writers changed the file after this session read it, the edit kept their changes. The session has not
        # read these changes. So keep the old hash: it refuses a later write of the whole file. The session may have
        # read the file by its real path, and edit it through a symlink.
        if {self._read_hashes.get(location), self._read_hashes.get(real_path)} <= {None, before}:
            self._remember(location, real_path, after)

    def _filter(self, glob: str, location: str) -> str:
        """Return the glob of a search in the form for backends: relative to the searched directory."""
        negated = glob.startswith("!")
        relative, absolute = workspace_pattern(glob[negated:], self._root)
        if absolute:
            below = "" if location == "." else location + "/"
            # ** and one more segment, such as **/*.py, select the same files below any directory.
            if not relative.startswith(below) and not re.fullmatch(r"\*\*/[^/]+", relative):
                raise FileError(
                    f"The glob {shown_name(glob)} starts at the workspace directory, and the search at "
                    f"{shown(location)}. Give a glob relative to {shown(location)}, or leave out path.",
                    code="bad_glob",
                    op="grep",
                )
            # Without "./", a name without a directory would also match in the directories below.
            relative = "./" + relative.removeprefix(below)
        return "!" + relative if negated else relative


async def as_result(work: Awaitable[T]) -> T | WorkspaceError:
    """Return the result of an operation; return its error instead of raising it."""
    try:
        return await work
    except WorkspaceError as error:
        return error


def _check_file(path: str, location: str) -> None:
    """Refuse to write to the workspace itself, or to a path that ends with ``/`` or ``/.`` and so is a directory's."""
    if path.endswith(("/", "/.")) or location == ".":
        raise PathRefused(
            f"{shown(path)} names a directory. Give the path of a file, such as {shown(location + '/file.txt')}.",
            code="path_directory",
            op="write",
        )


def _check_edit(old: str, new: str) -> None:
    """Refuse an edit that cannot succeed, whatever the file contains."""
    if not old:
        raise EditRefused(
            "old_string is empty. To replace the whole content, write the file.", code="empty", op="edit"
        )
    if old == new:
        message = "old_string and new_string are identical: nothing to change."
        raise EditRefused(message, code="identical", op="edit")
    if len(_encoded(old, "old_string")) + len(_encoded(new, "new_string")) > EDIT_BYTES:
        message = (
            f"old_string and new_string are over {EDIT_BYTES:,} bytes. Write the whole file, or edit less."
        )
        raise EditRefused(message, code="edit_too_large", op="edit")


def _encoded(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FileError(f"{name} is not valid Unicode text.", code="not_unicode") from None
