"""File operations on the workspace, each one request to a guest; to one in the sandbox two for large content."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
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
from langchain_daytona_ws._guest.text import PAGE_LINES
from langchain_daytona_ws.errors import EditRefused, FileError, PathRefused, WorkspaceError

Guest = Callable[[str, dict[str, Any]], Awaitable[Any]]
Upload = Callable[[str, bytes], Awaitable[None]]

MAX_BYTES = 10 << 20
INLINE_BYTES = 256 << 10  # of content travel in the request itself
EDIT_BYTES = 512 << 10
LIST_LIMIT = 1000
GLOB_LIMIT = 200
GREP_LIMIT = 250
MOST_ROWS = 5000
MOST_CONTEXT = 100
SEARCH_TIMEOUT_S = 20


class FileOps:
    """Read, write, edit, list, glob, grep and delete, remembering what this session has seen.

    Args:
        guest: Runs a guest entry module in the sandbox, or does as that would: ``await guest("files", request)``.
        upload: Puts bytes at an absolute path on the sandbox's own disk; None when the guest needs no such detour.
        root: The workspace directory in the sandbox, as ``pwd`` prints it there.
        staging_dir: Where large content is uploaded to; the guest removes it again.
        limit_bytes: Most bytes of text that one result shows.
        max_bytes: Largest file that is read or edited.
        seen: Where to remember what was read, when several share it: path → SHA-256.
        ids: Names what is uploaded.
        points_out: Whether the refusal of a missing path names those that are like it, for one more request.
    """

    def __init__(
        self,
        guest: Guest,
        upload: Upload | None,
        *,
        root: str,
        staging_dir: str = "",
        limit_bytes: int = 65536,
        max_bytes: int = MAX_BYTES,
        seen: dict[str, str] | None = None,
        ids: Ids = random_id,
        points_out: bool = True,
    ) -> None:
        self._points_out = points_out
        self._guest = guest
        self._upload = upload
        self._root = root
        self._staging_dir = staging_dir
        self._limit_bytes = limit_bytes
        self._max_bytes = max_bytes
        self._ids = ids
        # path -> SHA-256 of what this session last read or wrote there. Only single get, set and pop are
        # used, each of them atomic in CPython, so threads and tasks need no lock; and whoever wins a race,
        # the sandbox compares the hash with the file itself.
        self._seen: dict[str, str] = {} if seen is None else seen

    async def read(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> FileText:
        """Read a page of numbered lines, from the 1-based line ``offset``."""
        _within("offset", offset, 1, 1 << 40)
        _within("limit", limit, 1, 1 << 40)
        place = await self._place(path, log=True)
        reply = await self._ask(
            "files",
            "read",
            place,
            offset=offset,
            limit=limit,
            limit_bytes=self._limit_bytes,
            max_bytes=LOG_LIMIT_BYTES if is_log(place) else self._max_bytes,
        )
        result = FileText(
            path=place,
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
        self._remember(place, reply, result.sha256)
        return result

    async def write(self, path: str, content: str | bytes, *, overwrite: bool = False) -> FileWritten:
        """Write a whole file, and the directories above it.

        An existing file is replaced only when it still is as this session last read or wrote it, or with
        ``overwrite``. A string replaces text with that text's byte order mark and, where it has but line feeds, CRLF
        line ends; bytes are written as they are.
        """
        place = await self._place(path)
        _check_file(path, place)
        await self._check_backslashes(path, place)
        data = _encoded(content, "content") if isinstance(content, str) else bytes(content)
        as_text = isinstance(content, str)
        reply = await self._put(
            place, data, overwrite=overwrite, expected_sha256=self._seen.get(place), as_text=as_text
        )
        result = FileWritten(
            path=place,
            created=reply.flag("created"),
            unchanged=reply.flag("unchanged"),
            size_bytes=reply.number("bytes"),
            sha256=reply.sha256("sha256"),
            replayed=reply.is_replayed,
            kept=reply.styles("kept"),
            gone=reply.styles("gone"),
        )
        self._remember(place, reply, result.sha256)
        return result

    async def edit(
        self, path: str, old_string: str, new_string: str, *, replace_all: bool = False, exact: bool = False
    ) -> FileEdited:
        """Replace ``old_string``, which must occur exactly once, or everywhere with ``replace_all``.

        Unless ``exact``, it may differ from the one place that is meant in characters that look alike.
        """
        place = await self._place(path)
        _check_edit(old_string, new_string)
        reply = await self._ask(
            "files",
            "edit",
            place,
            old=old_string,
            new=new_string,
            replace_all=replace_all,
            max_bytes=self._max_bytes,
            **({"exact": True} if exact else {}),
        )
        result = FileEdited(
            path=place,
            count=reply.number("count"),
            lines=reply.numbers("at"),
            snippet=reply.text("snippet", 65536),
            size_bytes=reply.number("bytes"),
            sha256=reply.sha256("sha256"),
            replayed=reply.is_replayed,
            differences=reply.differences("differences"),
            mixed="mixed" in reply,
            verbatim="verbatim" in reply,
        )
        if result.lines:  # there are none of an edit that was made long ago
            self._remember_edit(place, reply, reply.sha256("before_sha256"), result.sha256)
        return result

    async def list(self, path: str = ".", *, limit: int = LIST_LIMIT) -> Listing:
        """List one directory, directories first."""
        _within("limit", limit, 1, MOST_ROWS)
        place = await self._place(path)
        reply = await self._ask("tree", "list", place, limit=limit, limit_bytes=self._limit_bytes)
        return Listing(place, reply.entries("entries"), reply.number("total"), reply.flag("more"))

    async def glob(self, pattern: str, *, path: str = ".", limit: int = GLOB_LIMIT) -> GlobResult:
        """Find files below ``path``, newest first; paths are given from the workspace root."""
        _within("limit", limit, 1, MOST_ROWS)
        place = await self._place(path)
        wanted, absolute = workspace_pattern(pattern, self._root)
        reply = await self._ask(
            "tree",
            "glob",
            "." if absolute else place,
            pattern=wanted,
            limit=limit,
            limit_bytes=self._limit_bytes,
            timeout_s=SEARCH_TIMEOUT_S,
        )
        entries, more = reply.entries("paths"), reply.flag("more")
        doubt = reply.doubt("doubt")
        return GlobResult(
            pattern=wanted,
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
        _within("limit", limit, 1, MOST_ROWS)
        _within("before", before, 0, MOST_CONTEXT)
        _within("after", after, 0, MOST_CONTEXT)
        if output_mode not in ("files_with_matches", "content", "count"):
            raise FileError("output_mode must be files_with_matches, content or count.", code="bad_argument")
        place = await self._place(path, log=True)
        _encoded(pattern, "pattern")
        narrowed = self._filter(glob, place) if glob else None
        try:
            reply = await self._ask(
                "search",
                "grep",
                place,
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
            rows=tuple(replace(row, path=place) for row in rows) if is_log(place) else rows,
            more=more,
            timed_out=reply.flag("timed_out"),
            skipped=reply.names("skipped"),
            omitted=reply.omitted("omitted"),
            hint="" if rows or more else grep_hint(pattern, glob, doubt),
        )

    async def delete(self, path: str) -> FileDeleted:
        """Delete a file, a symlink itself, or an empty directory."""
        place = await self._place(path)
        reply = await self._ask("files", "delete", place)
        self._seen.pop(place, None)
        return FileDeleted(place, reply.raw("kind", 16), reply.is_replayed)

    def forget(self) -> None:
        """Forget what was read: the sandbox is a new one."""
        self._seen.clear()

    async def check(self, path: str) -> None:
        """Refuse a path that no change could be made to.

        Raises:
            PathRefused: It is outside of the workspace, or none.
        """
        await self._place(path)

    async def _place(self, path: str, *, log: bool = False) -> str:
        """Return a path relative to the workspace; with ``log`` also the absolute one of a command's log."""
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
            found = await self._first_there(candidates(path, self._root))
            if found is None:
                raise
        raise outside(path, self._root, found)

    async def _check_backslashes(self, path: str, place: str) -> None:
        """Refuse a new name with backslashes that are not quoted: they are meant as slashes."""
        slashes = with_slashes(path, self._root)
        if slashes is not None and await self._first_there([place]) is None:
            raise PathRefused(
                f"{shown(place)} does not exist, and a backslash would be a part of its name. Use {shown(slashes)}, "
                r"with slashes; for a new name with a backslash in it, quote the path as $'a\\b'.",
                code="path_backslash",
                op="write",
            )

    async def _first_there(self, paths: Sequence[str]) -> str | None:
        """Return the first path that exists; None also where nobody can tell."""
        if not paths:
            return None
        try:
            found = (await self._ask("near", "exists", ".", paths=list(paths))).names("found")
        except WorkspaceError:  # the refusal that it is for stands without it
            return None
        return next((path for path in paths if path in found), None)

    async def _ask(self, entry: str, op: str, place: str, **arguments: Any) -> Reply:
        request = {"root": self._root, "op": op, "path": place, **arguments}
        if is_log(place):
            request["log"] = True
        reply = Reply(op, await self._guest(entry, request))
        if not reply.flag("ok"):
            raise file_error(place, reply, await self._near(place) if _is_missing(reply) else ())
        return reply

    async def _near(self, place: str) -> tuple[str, ...]:
        """Return paths that may be taken for one that is missing; none also where nobody can tell."""
        if not self._points_out or is_log(place):
            return ()
        try:
            return (await self._ask("near", "near", place)).names("found")
        except WorkspaceError:  # the refusal that it is for stands without it
            return ()

    async def _put(
        self, place: str, data: bytes, *, overwrite: bool, expected_sha256: str | None, as_text: bool = False
    ) -> Reply:
        request: dict[str, Any] = {"overwrite": overwrite, "max_bytes": self._max_bytes}
        if as_text:
            request["as_text"] = True
        if not overwrite:
            request["expected_sha256"] = expected_sha256
        return await self._ask("files", "write", place, **request, **await self._carried(data))

    async def _carried(self, data: bytes) -> dict[str, Any]:
        """Give the part of a request that carries content, uploaded before when it is large."""
        if self._upload is None or len(data) <= INLINE_BYTES:
            return {"content": data}
        path = f"{self._staging_dir}/upload-{self._ids()}"
        await self._upload(path, data)
        return {"content_from": path, "content_sha256": hashlib.sha256(data).hexdigest()}

    def _remember(self, place: str, reply: Reply, sha256: str) -> None:
        """Note the content under the path asked for, and under the one that symlinks led to."""
        if is_log(place):
            return
        self._seen[place] = sha256
        self._seen[reply.raw("path")] = sha256

    def _remember_edit(self, place: str, reply: Reply, before: str, after: str) -> None:
        # Somebody else's change between the read and this edit was kept by the edit, but not seen: a later
        # write over the whole file must still be refused.
        if self._seen.get(place) in (None, before):
            self._remember(place, reply, after)

    def _filter(self, glob: str, place: str) -> str:
        """Bring a search's glob into the form that the guest knows: from the directory searched."""
        negated = glob.startswith("!")
        wanted, absolute = workspace_pattern(glob[negated:], self._root)
        if absolute:
            below = "" if place == "." else place + "/"
            # A "./" in front keeps a name without a directory from matching at any depth.
            wanted = "./" + wanted.removeprefix(below)
        return "!" + wanted if negated else wanted


def _is_missing(reply: Reply) -> bool:
    return reply.raw("error", 64) == "missing"


def _check_file(path: str, place: str) -> None:
    """Refuse to write what is spelled as a directory."""
    if path.endswith(("/", "/.")) and place != ".":
        raise PathRefused(
            f"{shown(path)} names a directory. Give the path of a file, such as {shown(place + '/file.txt')}.",
            code="path_directory",
            op="write",
        )


def _check_edit(old: str, new: str) -> None:
    """Refuse, before any request, what can't be right whatever the file holds."""
    if not old:
        raise EditRefused("old_string is empty. To write a whole file, use write.", code="empty", op="edit")
    if old == new:
        message = "old_string and new_string are identical: nothing to change."
        raise EditRefused(message, code="identical", op="edit")
    if len(_encoded(old, "old_string")) + len(_encoded(new, "new_string")) > EDIT_BYTES:
        message = f"old_string and new_string are over {EDIT_BYTES:,} bytes. Use write, or smaller edits."
        raise EditRefused(message, code="edit_too_large", op="edit")


def _encoded(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FileError(f"{name} is not valid Unicode text.", code="not_unicode") from None


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise FileError(f"{name} must be from {least} to {most}.", code="bad_argument")
