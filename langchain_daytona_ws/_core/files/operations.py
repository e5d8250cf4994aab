"""File operations on the workspace: requests to a guest, in the sandbox or on S3, and their checked results."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_daytona_ws._core.commands.run import LOG_LIMIT_BYTES
from langchain_daytona_ws._core.files.errors import file_error
from langchain_daytona_ws._core.files.models import (
    MAX_NUMBER,
    FileDeleted,
    FileEdited,
    FileText,
    FileWritten,
    GlobResult,
    GrepResult,
    Listing,
    OutputMode,
    Reply,
)
from langchain_daytona_ws._core.files.names import shown
from langchain_daytona_ws._core.files.search_hints import glob_hint, grep_hint, unsupported
from langchain_daytona_ws._core.id_factory import Ids, random_id
from langchain_daytona_ws._core.paths import (
    candidates,
    is_log,
    outside,
    with_slashes,
    workspace_path,
    workspace_pattern,
)
from langchain_daytona_ws._guest.edit import EditError, apply_edit
from langchain_daytona_ws._guest.text import PAGE_LINES
from langchain_daytona_ws.errors import (
    EditRefused,
    FileError,
    FileUnsuitable,
    PathRefused,
    SandboxError,
    WorkspaceError,
    WriteConflict,
)

Guest = Callable[[str, dict[str, Any]], Awaitable[Any]]
Upload = Callable[[str, bytes], Awaitable[None]]
Download = Callable[[str, int], Awaitable[bytes]]

MAX_BYTES = 10 << 20
INLINE_BYTES = 256 << 10  # of content inside a request or answer
EDIT_BYTES = 512 << 10
LIST_LIMIT = 1000
GLOB_LIMIT = 200
GREP_LIMIT = 250
MOST_ROWS = 5000
MOST_CONTEXT = 100
SEARCH_TIMEOUT_S = 20
LARGEST_BYTES = 128 << 20  # of a fetched file
VIEWED_BYTES = 32 << 20  # of a viewed text file
FETCH_TRIES = 3
# Limit for content in the answer itself after a corrupt download: a download of the daemon 0.190 ends where a file
# contains the separator of its parts. As base64 it is below the size limit of an answer.
INLINE_AGAIN_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Viewed:
    """Lines of a text file, or the ``content`` of a binary file. ``first`` and ``last`` are 1-based, or 0."""

    body: str = ""
    first: int = 0
    last: int = 0
    lines: int = 0
    cut: bool = False  # a single line is shown, and it is longer
    more: bool = False  # not all requested lines fit
    content: bytes | None = None


class FileOps:
    """The file operations of a session; records the hashes of the content that the session has read.

    Args:
        guest: Answers requests: ``await guest("files", request)``. In the sandbox, or on S3.
        upload: Writes bytes to an absolute path on the sandbox's own disk; None if requests may carry any size.
        download: Reads a file of the sandbox by its absolute path, up to a limit in bytes; None if answers may carry
            any size.
        root: The workspace directory in the sandbox, as ``pwd`` prints it.
        staging_dir: Directory for uploads of large content; the guest deletes them.
        limit_bytes: Most bytes of text in a result.
        max_bytes: Largest file that can be read or edited.
        read_hashes: The hashes of read content, if several objects share them: path → SHA-256.
        ids: Creates names for uploads.
        points_out: Whether the error for a missing path names similar paths; this costs one more request.
    """

    def __init__(
        self,
        guest: Guest,
        upload: Upload | None,
        download: Download | None = None,
        *,
        root: str,
        staging_dir: str = "",
        limit_bytes: int = 65536,
        max_bytes: int = MAX_BYTES,
        read_hashes: dict[str, str] | None = None,
        ids: Ids = random_id,
        points_out: bool = True,
    ) -> None:
        self._points_out = points_out
        self._guest = guest
        self._upload = upload
        self._download = download
        self._root = root
        self._staging_dir = staging_dir
        self._limit_bytes = limit_bytes
        self._max_bytes = max_bytes
        self._ids = ids
        # path -> SHA-256 of the content that this session last read or wrote. No lock: only single get, set and
        # pop are used, which are atomic in CPython, and the guest compares the hash with the file itself.
        self._read_hashes: dict[str, str] = {} if read_hashes is None else read_hashes

    async def read(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> FileText:
        """Read a page of numbered lines, from the 1-based line ``offset``."""
        _check_range("offset", offset, 1, 1 << 40)
        _check_range("limit", limit, 1, 1 << 40)
        location = await self._resolve(path, log=True)
        reply = await self._request(
            "files",
            "read",
            location,
            offset=offset,
            limit=limit,
            limit_bytes=self._limit_bytes,
            max_bytes=LOG_LIMIT_BYTES if is_log(location) else self._max_bytes,
        )
        result = FileText(
            path=location,
            body=reply.text("body", 2 * self._limit_bytes + 4096),
            first=reply.number("first"),
            last=reply.number("last"),
            lines=reply.number("lines"),
            cut_lines=reply.number("cut"),
            lossy=reply.flag("lossy"),
            newline=reply.text("newline", 16),
            bom=reply.flag("bom"),
            size_bytes=reply.number("bytes"),
            mtime_ns=reply.number("mtime_ns", least=-MAX_NUMBER),
            sha256=reply.sha256("sha256"),
        )
        self._remember(location, reply, result.sha256)
        return result

    async def view(
        self, path: str, *, offset: int, limit: int, limit_bytes: int, binary: bool, binary_bytes: int
    ) -> Viewed:
        """Read lines without numbers, or a whole binary file.

        Args:
            path: The file; a text file of at most 32 MiB.
            offset: The first line, 1-based.
            limit: Most lines.
            limit_bytes: Most bytes of text.
            binary: Whether to treat any content as binary.
            binary_bytes: Largest binary file.

        Raises:
            FileError: As in `read`, but an offset past the end returns no lines.
        """
        location = await self._resolve(path, log=True)
        reply = await self._request(
            "content",
            "view",
            location,
            offset=offset,
            limit=limit,
            limit_bytes=limit_bytes,
            binary=binary,
            binary_bytes=binary_bytes,
            max_bytes=VIEWED_BYTES,
        )
        self._remember(location, reply, reply.sha256("sha256"))
        if "content" in reply:
            return Viewed(content=reply.content("content", binary_bytes))
        viewed = Viewed(
            body=reply.text("body", limit_bytes),
            first=reply.number("first"),
            last=reply.number("last"),
            lines=reply.number("lines"),
            cut=reply.flag("cut"),
            more=reply.flag("more"),
        )
        if (viewed.first or viewed.last) and not offset == viewed.first <= viewed.last <= viewed.lines:
            raise reply.malformed("first")
        return viewed

    async def fetch(self, path: str, *, max_bytes: int = LARGEST_BYTES) -> bytes:
        """Read a whole file.

        Raises:
            FileError: It is not a file, is larger than ``max_bytes``, or changed during each of three attempts.
        """
        location = await self._resolve(path, log=True)
        data, sha256, reply = await self._download_checked(location, max_bytes)
        self._remember(location, reply, sha256)
        return data

    async def write(self, path: str, content: str | bytes, *, overwrite: bool = False) -> FileWritten:
        """Write a whole file, and the directories above it.

        An existing file is replaced only with ``overwrite``, or if its content is the one that this session last read
        or wrote. A string keeps the byte order mark and, if it has only line feeds, the CRLF line ends of the text
        that it replaces; bytes are written unchanged.
        """
        location = await self._resolve(path)
        _check_file(path, location)
        await self._check_backslashes(path, location)
        data = _encoded(content, "content") if isinstance(content, str) else bytes(content)
        as_text = isinstance(content, str)
        reply = await self._put(
            location,
            data,
            overwrite=overwrite,
            expected_sha256=self._read_hashes.get(location),
            as_text=as_text,
        )
        result = FileWritten(
            path=location,
            created=reply.flag("created"),
            unchanged=reply.flag("unchanged"),
            size_bytes=reply.number("bytes"),
            sha256=reply.sha256("sha256"),
            from_record=reply.is_from_record,
            kept=reply.styles("kept"),
            gone=reply.styles("gone"),
        )
        self._remember(location, reply, result.sha256)
        return result

    async def edit(
        self, path: str, old_string: str, new_string: str, *, replace_all: bool = False, exact: bool = False
    ) -> FileEdited:
        """Replace ``old_string``, which must occur exactly once, or everywhere with ``replace_all``.

        Unless ``exact``, the text in the file may differ in characters that look alike, if it occurs once.
        """
        location = await self._resolve(path)
        _check_edit(old_string, new_string)
        reply = await self._request(
            "files",
            "edit",
            location,
            old=old_string,
            new=new_string,
            replace_all=replace_all,
            max_bytes=self._max_bytes,
            **({"exact": True} if exact else {}),
        )
        result = FileEdited(
            path=location,
            count=reply.number("count"),
            lines=reply.numbers("at"),
            snippet=reply.text("snippet", 65536),
            size_bytes=reply.number("bytes"),
            sha256=reply.sha256("sha256"),
            from_record=reply.is_from_record,
            differences=reply.differences("differences"),
            mixed="mixed" in reply,
            verbatim="verbatim" in reply,
        )
        if result.lines:  # a recorded edit has no lines
            self._remember_edit(location, reply, reply.sha256("before_sha256"), result.sha256)
        return result

    async def replace_text(self, path: str, old: str, new: str, *, replace_all: bool) -> int:
        """Replace text like `edit`, with strings of any size; return the number of replacements.

        Text that only looks alike is not edited, because the result cannot report the differences.
        """
        if len(old) + len(new) <= EDIT_BYTES // 4:  # a character has at most four bytes
            return (await self.edit(path, old, new, replace_all=replace_all, exact=True)).count
        location = await self._resolve(path)
        data, before, _ = await self._download_checked(location, self._max_bytes)
        try:
            edited = apply_edit(data, old, new, replace_all, self._max_bytes, exact=True)
        except EditError as error:
            raise file_error(location, Reply("edit", {"error": error.code, **error.facts})) from None
        # Only over the downloaded content: a change by another call must not be lost.
        reply = await self._put(location, edited.data, overwrite=False, expected_sha256=before)
        self._remember_edit(location, reply, before, reply.sha256("sha256"))
        return len(edited.ranges)

    async def create(self, path: str, content: str | bytes) -> None:
        """Write a file that does not exist yet, or already has this content, even if this session has read it."""
        self._read_hashes.pop(await self._resolve(path), None)
        await self.write(path, content)

    async def list(self, path: str = ".", *, limit: int = LIST_LIMIT) -> Listing:
        """List one directory, directories first."""
        _check_range("limit", limit, 1, MOST_ROWS)
        location = await self._resolve(path)
        reply = await self._request("tree", "list", location, limit=limit, limit_bytes=self._limit_bytes)
        return Listing(location, reply.entries("entries"), reply.number("total"), reply.flag("more"))

    async def glob(self, pattern: str, *, path: str = ".", limit: int = GLOB_LIMIT) -> GlobResult:
        """Find files below ``path``, newest first; the returned paths are relative to the workspace root."""
        _check_range("limit", limit, 1, MOST_ROWS)
        location = await self._resolve(path)
        relative, absolute = workspace_pattern(pattern, self._root)
        reply = await self._request(
            "tree",
            "glob",
            "." if absolute else location,
            pattern=relative,
            limit=limit,
            limit_bytes=self._limit_bytes,
            timeout_s=SEARCH_TIMEOUT_S,
        )
        entries, more = reply.entries("paths"), reply.flag("more")
        doubt = reply.doubt("doubt")
        return GlobResult(
            pattern=relative,
            entries=entries,
            total=reply.number("total"),
            more=more,
            timed_out=reply.flag("timed_out"),
            skipped=reply.names("skipped"),
            omitted=reply.omitted("omitted"),
            hint="" if entries or more else glob_hint(pattern, doubt),
        )

    async def grep(
        self,
        pattern: str,
        *,
        path: str = ".",
        glob: str | None = None,
        output_mode: OutputMode = "files_with_matches",
        before: int = 0,
        after: int = 0,
        ignore_case: bool = False,
        limit: int = GREP_LIMIT,
    ) -> GrepResult:
        """Search for a regular expression in a file or below a directory.

        ``glob`` narrows the files; ``before`` and ``after`` add lines of context in mode ``content``;
        ``limit`` is the most rows (files, or lines) in the result.
        """
        _check_range("limit", limit, 1, MOST_ROWS)
        _check_range("before", before, 0, MOST_CONTEXT)
        _check_range("after", after, 0, MOST_CONTEXT)
        if output_mode not in ("files_with_matches", "content", "count"):
            raise FileError("output_mode must be files_with_matches, content or count.", code="bad_argument")
        location = await self._resolve(path, log=True)
        _encoded(pattern, "pattern")
        narrowed = self._filter(glob, location) if glob else None
        try:
            reply = await self._request(
                "search",
                "grep",
                location,
                pattern=pattern,
                glob=narrowed,
                mode=output_mode,
                before=before,
                after=after,
                ignore_case=ignore_case,
                limit=limit,
                limit_bytes=self._limit_bytes,
                timeout_s=SEARCH_TIMEOUT_S,
            )
        except FileError as error:
            if error.code != "bad_pattern":
                raise
            raise FileError(f"{error.message}{unsupported(pattern)}", code=error.code, op=error.op) from None
        rows, more = reply.grep_rows("rows", output_mode), reply.flag("more")
        doubt = reply.doubt("doubt")
        return GrepResult(
            pattern=pattern,
            mode=output_mode,
            rows=tuple(replace(row, path=location) for row in rows) if is_log(location) else rows,
            more=more,
            timed_out=reply.flag("timed_out"),
            skipped=reply.names("skipped"),
            omitted=reply.omitted("omitted"),
            hint="" if rows or more else grep_hint(pattern, glob, doubt),
        )

    async def delete(self, path: str) -> FileDeleted:
        """Delete a file, a symlink itself, or an empty directory."""
        location = await self._resolve(path)
        reply = await self._request("files", "delete", location)
        self._read_hashes.pop(location, None)
        return FileDeleted(location, reply.raw("kind", 16), reply.is_from_record)

    def forget(self) -> None:
        """Forget all read content: the sandbox is new."""
        self._read_hashes.clear()

    async def check(self, path: str) -> None:
        """Check that a path can be changed.

        Raises:
            PathRefused: It is outside the workspace, or not a path.
        """
        await self._resolve(path)

    async def _resolve(self, path: str, *, log: bool = False) -> str:
        """Return a path relative to the workspace; with ``log``, also the absolute path of a command's log."""
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
        """Refuse a new name with unquoted backslashes: slashes are intended."""
        slashes = with_slashes(path, self._root)
        if slashes is not None and await self._first_existing([location]) is None:
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
            found = (await self._request("near", "exists", ".", paths=list(paths))).names("found")
        except WorkspaceError:  # only adds to another error
            return None
        return next((path for path in paths if path in found), None)

    async def _request(self, entry: str, op: str, location: str, **arguments: Any) -> Reply:
        request = {"root": self._root, "op": op, "path": location, **arguments}
        if is_log(location):
            request["log"] = True
        reply = Reply(op, await self._guest(entry, request))
        if not reply.flag("ok"):
            raise file_error(location, reply, await self._similar(location) if _is_missing(reply) else ())
        return reply

    async def _similar(self, location: str) -> tuple[str, ...]:
        """Return existing paths that are similar to a missing path; an empty tuple if the request fails."""
        if not self._points_out or is_log(location):
            return ()
        try:
            return (await self._request("near", "near", location)).names("found")
        except WorkspaceError:  # only adds to another error
            return ()

    async def _download_checked(self, location: str, max_bytes: int) -> tuple[bytes, str, Reply]:
        for attempt in range(FETCH_TRIES):
            inline_bytes = INLINE_BYTES if attempt == 0 else INLINE_AGAIN_BYTES
            reply = await self._request(
                "content", "fetch", location, inline_bytes=inline_bytes, max_bytes=max_bytes
            )
            sha256, size = reply.sha256("sha256"), reply.number("bytes")
            if "content" in reply or self._download is None:
                data = reply.content("content", max_bytes)
            else:
                absolute = f"{self._root.rstrip('/')}/{_encodable_path(reply.raw('path'))}"
                try:
                    data = await self._download(absolute, size)
                except SandboxError as error:
                    if attempt or error.code != "daytona_refused":
                        raise
                    continue  # the file's content may have broken the separation into parts
            if len(data) == size and hashlib.sha256(data).hexdigest() == sha256:
                return data, sha256, reply
        raise WriteConflict(
            f"{location} changed while it was read. Try again.", code="busy", op="fetch", retryable=True
        )

    async def _put(
        self,
        location: str,
        data: bytes,
        *,
        overwrite: bool,
        expected_sha256: str | None,
        as_text: bool = False,
    ) -> Reply:
        request: dict[str, Any] = {"overwrite": overwrite, "max_bytes": self._max_bytes}
        if as_text:
            request["as_text"] = True
        if not overwrite:
            request["expected_sha256"] = expected_sha256
        return await self._request("files", "write", location, **request, **await self._content_fields(data))

    async def _content_fields(self, data: bytes) -> dict[str, Any]:
        """Return the fields of a request that carry content; large content is uploaded first."""
        if self._upload is None or len(data) <= INLINE_BYTES:
            return {"content": data}
        path = f"{self._staging_dir}/upload-{self._ids()}"
        await self._upload(path, data)
        return {"content_from": path, "content_sha256": hashlib.sha256(data).hexdigest()}

    def _remember(self, location: str, reply: Reply, sha256: str) -> None:
        """Record the content under the requested path, and under the path that its symlinks lead to."""
        if is_log(location):
            return
        self._read_hashes[location] = sha256
        self._read_hashes[reply.raw("path")] = sha256

    def _remember_edit(self, location: str, reply: Reply, before: str, after: str) -> None:
        # The edit kept changes by others since the last read. This session has not read them, so a later write
        # over the whole file must still be refused.
        if self._read_hashes.get(location) in (None, before):
            self._remember(location, reply, after)

    def _filter(self, glob: str, location: str) -> str:
        """Convert a search's glob to the guest's form: relative to the searched directory."""
        negated = glob.startswith("!")
        relative, absolute = workspace_pattern(glob[negated:], self._root)
        if absolute:
            below = "" if location == "." else location + "/"
            # With "./" in front, a name without a directory matches only in this directory.
            relative = "./" + relative.removeprefix(below)
        return "!" + relative if negated else relative


def _is_missing(reply: Reply) -> bool:
    return reply.raw("error", 64) == "missing"


def _check_file(path: str, location: str) -> None:
    """Refuse to write a path that ends like a directory."""
    if path.endswith(("/", "/.")) and location != ".":
        raise PathRefused(
            f"{shown(path)} names a directory. Give the path of a file, such as {shown(location + '/file.txt')}.",
            code="path_directory",
            op="write",
        )


def _check_edit(old: str, new: str) -> None:
    """Refuse an edit that is wrong for any content, before a request is sent."""
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


def _encodable_path(path: str) -> str:
    """Return a path that a link leads to, if a request can contain it.

    Raises:
        FileUnsuitable: It is not UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise FileUnsuitable(
            "A link leads to a name that is not UTF-8. Rename the file with mv.",
            code="name_not_text",
            op="fetch",
        ) from None
    return path


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise FileError(f"{name} must be from {least} to {most}.", code="bad_argument")
