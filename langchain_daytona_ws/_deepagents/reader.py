"""The backend's reads: files, directories and searches, which need no approval."""

from __future__ import annotations

import posixpath
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from deepagents.backends.protocol import (
    FileData,
    FileDownloadResponse,
    FileInfo,
    GlobResult,
    GrepMatch,
    GrepResult,
    LsResult,
    ReadResult,
)

from langchain_daytona_ws._core.files.models import Entry, FileView, ViewQuery
from langchain_daytona_ws._core.files.operations import MAX_ROWS, FileOperations
from langchain_daytona_ws._deepagents.calls import is_in_graph
from langchain_daytona_ws._deepagents.locations import FileLocation, locate
from langchain_daytona_ws._deepagents.messages import directory_error, read_error, transfer_error
from langchain_daytona_ws._deepagents.session import CallSession
from langchain_daytona_ws._guest.match import Glob, GlobError
from langchain_daytona_ws.errors import FileError, FileUnsuitable, WorkspaceError

TEXT_BYTES = 500 << 10
BINARY_BYTES = 500 << 10
# Extensions of files that Deep Agents sends to a model as an image, video, audio or document.
MEDIA = {
    *(".png", ".jpeg", ".jpg", ".webp", ".gif", ".heic", ".heif"),
    *(".mp4", ".mpeg", ".mov", ".avi", ".flv", ".mpg", ".webm", ".wmv", ".3gpp", ".mkv"),
    *(".wav", ".mp3", ".aiff", ".aac", ".ogg", ".flac"),
    *(".pdf", ".ppt", ".pptx"),
}
MORE_LINES = "[There was no room for more. Read on with offset={next}, or with a smaller limit.]"
BINARY_MATCH = "[A binary file that matches. Its lines are not shown: use grep -a with execute.]"
CUT_LINE = "[The line is too long to be shown whole. Use grep or execute for the rest of it.]"
_SPECIAL = frozenset("\\.+*?()|[]{}^$")  # have a special meaning in regular expressions


class Reader:
    """Read, download, list, find and search, as coroutines."""

    def __init__(self, session: CallSession) -> None:
        self._session = session

    async def read(self, path: str, offset: int, limit: int) -> ReadResult:
        try:
            location, ops = self._session.location_and_operations(path)
            query = ViewQuery(
                offset=max(int(offset), 0) + 1,
                limit=max(int(limit), 1),
                limit_bytes=TEXT_BYTES,
                binary=posixpath.splitext(location.path)[1].lower() in MEDIA,
                binary_bytes=BINARY_BYTES,
            )
            viewed = await ops.view(location.path, query)
        except FileUnsuitable as error:
            if error.code == "too_large" and error.context.get("max_bytes") == BINARY_BYTES:
                text = f"Binary file exceeds maximum preview size of {BINARY_BYTES} bytes"
                return ReadResult(error=f"File '{path}': {text}")
            return ReadResult(error=read_error(path, error))
        except WorkspaceError as error:
            return ReadResult(error=read_error(path, error))
        return _read_result(path, viewed, max(int(offset), 0), int(limit))

    async def download(self, paths: list[str]) -> list[FileDownloadResponse]:
        answers = [FileDownloadResponse(path=path) for path in paths]
        wanted: dict[FileOperations, list[tuple[FileDownloadResponse, str]]] = {}
        for answer in answers:
            if not answer.path.startswith("/"):
                answer.error = "invalid_path"
                continue
            try:
                location, ops = self._session.location_and_operations(answer.path)
            except WorkspaceError as error:
                answer.error = transfer_error(error)
            else:
                wanted.setdefault(ops, []).append((answer, location.path))
        for ops, downloads in wanted.items():
            results: list[bytes | WorkspaceError]
            try:
                results = await ops.fetch_many([path for _, path in downloads])
            except WorkspaceError as error:
                results = [error] * len(downloads)
            for (answer, _), result in zip(downloads, results, strict=True):
                if isinstance(result, WorkspaceError):
                    answer.error = transfer_error(result)
                else:
                    answer.content = result
        return answers

    async def ls(self, path: str) -> LsResult:
        try:
            location, ops = self._session.location_and_operations(path)
            listing = await ops.list(location.path, limit=MAX_ROWS)
        except WorkspaceError as error:
            return LsResult(error=directory_error(path, error))
        if listing.more:
            return LsResult(
                error=f"Path '{path}': {listing.total:,} entries are too many to list. Use glob with a narrower pattern"
            )
        return LsResult(entries=[_info(location.child(entry.name), entry) for entry in listing.entries])

    async def glob(self, pattern: str, path: str | None) -> GlobResult:
        found = await self._glob(pattern, path)
        if found.error or found.matches or not is_in_graph():
            return found
        # In Deep Agents, a pattern with a leading slash starts at the searched directory. But models also send patterns
        # that are absolute paths.
        directory, below = split_absolute(pattern)
        elsewhere = await self._glob(below, directory) if directory else found
        return elsewhere if elsewhere.matches else found

    async def _glob(self, pattern: str, path: str | None) -> GlobResult:
        in_graph = is_in_graph()
        try:
            location, ops = self._session.location_and_operations(path or ".")
            if not pattern or ".." in pattern.split("/"):
                raise FileError("The pattern is empty, or contains '..'.", code="bad_glob", op="glob")
            glob, is_visible = file_glob(pattern), hidden_name_filter(pattern)
            results = [await ops.glob(glob, path=location.path, limit=MAX_ROWS)]
            if not in_graph and not glob.endswith("/"):
                results.append(await ops.glob(f"{glob}/", path=location.path, limit=MAX_ROWS))
        except GlobError as error:
            return GlobResult(error=f"Path '{path or self._session.root}': {error}")
        except WorkspaceError as error:
            return GlobResult(error=directory_error(path or self._session.root, error))
        matches: list[FileInfo] = []
        for entry in (entry for result in results for entry in result.entries):
            relative = _relative(entry.name, location)
            if is_visible(relative):
                matches.append(_info(location.child(relative) if in_graph else relative, entry))
        is_cut = any(result.more or result.timed_out for result in results)
        truncated = is_cut or any(result.omitted for result in results)  # unreadable directories
        # Early releases of Deep Agents have no `truncation_reason`.
        has_reason = any(field.name == "truncation_reason" for field in fields(GlobResult))
        reason = "budget" if is_cut else "unreadable"
        optional: dict[str, Any] = {"truncation_reason": reason} if truncated and has_reason else {}
        return GlobResult(matches=matches, truncated=truncated, **optional)

    async def grep(
        self, pattern: str, path: str | None, glob: str | None, max_count: int | None
    ) -> GrepResult:
        max_rows = MAX_ROWS - 1 if max_count is None else max(0, min(max_count, MAX_ROWS - 1))
        try:
            location, ops = self._session.location_and_operations(path or ".")
            if not pattern or "\n" in pattern:
                raise FileError("The text must be one line, and not empty.", code="bad_pattern", op="grep")
            if glob and "/" in glob and not glob.startswith(location.child("")):
                glob = location.child(glob.lstrip("/"))  # the glob is relative to the searched directory
            found = await ops.grep(
                literal_regex(pattern),
                path=location.path,
                glob=glob,
                output_mode="content",
                limit=max_rows + 1,
            )
        except WorkspaceError as error:
            return GrepResult(error=directory_error(path or self._session.root, error))
        top = locate("/" if location.is_outside else self._session.root, self._session.root)
        matches = [GrepMatch(path=top.child(row.path), line=row.line, text=row.text) for row in found.rows]
        truncated = found.more or found.timed_out or len(matches) > max_rows
        for omitted in found.omitted:
            if omitted.reason == "binary_match":
                matches += [
                    GrepMatch(path=top.child(path), line=0, text=BINARY_MATCH) for path in omitted.paths
                ]
            # `GrepResult` can't report why files were omitted. Large binary files are omitted on purpose, and do not
            # make the result incomplete.
            truncated = truncated or omitted.reason in ("unreadable", "utf16")
        return GrepResult(matches=matches[:max_rows], truncated=truncated)


def _read_result(path: str, viewed: FileView, offset: int, limit: int) -> ReadResult:
    if viewed.content is not None:
        return ReadResult(file_data=FileData(content=b64encode(viewed.content).decode(), encoding="base64"))
    if limit <= 0:
        # Early releases of Deep Agents have no `no_lines_requested`.
        has_field = any(field.name == "no_lines_requested" for field in fields(ReadResult))
        optional: dict[str, Any] = {"no_lines_requested": True} if has_field and viewed.lines else {}
        return ReadResult(file_data=FileData(content="", encoding="utf-8"), **optional)
    if not viewed.lines:
        return ReadResult(file_data=FileData(content="", encoding="utf-8"))
    if not viewed.first:
        return ReadResult(
            error=f"File '{path}': Line offset {offset} exceeds file length ({viewed.lines} lines)"
        )
    body = viewed.body
    if viewed.cut:
        body = f"{body}\n\n{CUT_LINE}"
    elif viewed.more:
        body = f"{body}\n\n{MORE_LINES.format(next=viewed.last)}"
    return ReadResult(
        file_data=FileData(content=body, encoding="utf-8"),
        total_lines=viewed.lines,
        start_line=viewed.first,
        end_line=viewed.last,
        next_offset=viewed.last if viewed.last < viewed.lines else None,
    )


def _relative(found: str, location: FileLocation) -> str:
    """Convert a path that file operations found to a path relative to the searched directory."""
    top = location.path.lstrip("/") if location.relative is None else location.relative
    return found if top in ("", ".") else found.removeprefix(f"{top}/")


def _info(path: str, entry: Entry) -> FileInfo:
    info = FileInfo(path=path.encode("utf-8", "replace").decode(), is_dir=entry.kind == "dir")
    if entry.kind == "file":
        info["size"] = entry.size_bytes
    if 0 < entry.mtime_ns < 1 << 62:
        info["modified_at"] = datetime.fromtimestamp(entry.mtime_ns // 10**9, UTC).isoformat()
    return info


def literal_regex(text: str) -> str:
    """Return a regular expression that matches exactly this text in ripgrep, grep -P, grep -E and RE2."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def file_glob(pattern: str) -> str:
    """Convert a glob of Deep Agents to a glob of this package. A pattern without a slash matches names at any depth."""
    return pattern.lstrip("/") if "/" in pattern else f"**/{pattern}"


def split_absolute(pattern: str) -> tuple[str, str]:
    """Split an absolute pattern into a literal directory and the rest.

    For a relative pattern, and for a pattern whose first part has a wildcard or is the only part, return
    ``("", pattern)``.
    """
    literal = re.split(r"[*?\[{\\]", pattern, maxsplit=1)[0]
    directory = literal.rpartition("/")[0]
    if not directory.startswith("/"):
        return "", pattern
    return directory, pattern[len(directory) :]


def hidden_name_filter(pattern: str) -> Callable[[str], bool]:
    """Return a predicate that rejects hidden names, except if a part of the pattern with a leading dot matches them.

    For a pattern without a slash, only the file's own name is checked: ``*.yml`` finds ``.github/ci.yml``.

    Raises:
        GlobError: The pattern is invalid.
    """
    dotted = [
        segment
        for segments in Glob(file_glob(pattern)).alternatives
        for segment in segments
        if segment is not None and segment.tokens[:1] == [("c", ".")]
    ]
    only_name = "/" not in pattern

    def is_visible(path: str) -> bool:
        names = path.split("/")[-1:] if only_name else path.split("/")
        return all(
            not name.startswith(".") or any(segment.matches(name) for segment in dotted) for name in names
        )

    return is_visible
