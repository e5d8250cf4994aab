"""What the backend reads: files, directories, searches. Nobody is asked."""

from __future__ import annotations

import posixpath
from base64 import b64encode
from collections.abc import Collection
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

from langchain_daytona_ws._core.contents import ContentOps, Viewed
from langchain_daytona_ws._core.file_results import Entry
from langchain_daytona_ws._core.files import MOST_ROWS
from langchain_daytona_ws._deepagents.calls import is_made_by_an_agent
from langchain_daytona_ws._deepagents.patterns import files_pattern, literal, shows
from langchain_daytona_ws._deepagents.places import Place, place_of
from langchain_daytona_ws._deepagents.words import directory_error, file_error, transfer_error
from langchain_daytona_ws._guest.match import GlobError
from langchain_daytona_ws.errors import FileError, FileUnsuitable, WorkspaceError

TEXT_BYTES = 500 << 10
BINARY_BYTES = 500 << 10
# What Deep Agents hands to a model as an image, a video, a sound or a document, by its name alone.
MEDIA = {
    *(".png", ".jpeg", ".jpg", ".webp", ".gif", ".heic", ".heif"),
    *(".mp4", ".mpeg", ".mov", ".avi", ".flv", ".mpg", ".webm", ".wmv", ".3gpp", ".mkv"),
    *(".wav", ".mp3", ".aiff", ".aac", ".ogg", ".flac"),
    *(".pdf", ".ppt", ".pptx"),
}
NO_ROOM = "[There was no room for more. Read on with offset={next}, or with a smaller limit.]"
BINARY = "[A binary file that matches. Its lines are not shown: use grep -a with execute.]"
CUT = "[The line is too long to be shown whole. Use grep or execute for the rest of it.]"


class Files:
    """The operations of one face on the files of the workspace, and on all others of the sandbox.

    Args:
        root: The workspace directory.
        workspace: Operations on the workspace.
        beyond: Operations by absolute path.
        aside: The directories where Deep Agents puts something aside.
    """

    def __init__(
        self, root: str, workspace: ContentOps, beyond: ContentOps, *, aside: Collection[str] = ()
    ) -> None:
        self.root = root
        self._aside = aside
        self._workspace = workspace
        self._beyond = beyond

    def at(self, path: str) -> tuple[Place, ContentOps]:
        """Return where a path is, and what works there.

        Raises:
            PathRefused: It is no path.
        """
        place = place_of(path, self.root, self._aside)
        return place, self._beyond if place.within is None else self._workspace


class Reading:
    """Read, download, list, find and search, as coroutines.

    Args:
        files: Of one face.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    async def read(self, path: str, offset: int, limit: int) -> ReadResult:
        try:
            place, ops = self._files.at(path)
            viewed = await ops.view(
                place.path,
                offset=max(int(offset), 0) + 1,
                limit=max(int(limit), 1),
                limit_bytes=TEXT_BYTES,
                binary=posixpath.splitext(place.path)[1].lower() in MEDIA,
                binary_bytes=BINARY_BYTES,
            )
        except FileUnsuitable as error:
            if error.code == "too_large" and f"limit of {BINARY_BYTES:,}" in error.message:
                text = f"Binary file exceeds maximum preview size of {BINARY_BYTES} bytes"
                return ReadResult(error=f"File '{path}': {text}")
            return ReadResult(error=file_error(path, error))
        except WorkspaceError as error:
            return ReadResult(error=file_error(path, error))
        return _read(path, viewed, max(int(offset), 0), int(limit))

    async def download(self, paths: list[str]) -> list[FileDownloadResponse]:
        return [await self._downloaded(path) for path in paths]

    async def _downloaded(self, path: str) -> FileDownloadResponse:
        if not path.startswith("/"):
            return FileDownloadResponse(path=path, error="invalid_path")
        try:
            place, ops = self._files.at(path)
            return FileDownloadResponse(path=path, content=await ops.fetch(place.path))
        except WorkspaceError as error:
            return FileDownloadResponse(path=path, error=transfer_error(error))

    async def ls(self, path: str) -> LsResult:
        try:
            place, ops = self._files.at(path)
            listing = await ops.list(place.path, limit=MOST_ROWS)
        except WorkspaceError as error:
            return LsResult(error=directory_error(path, error))
        if listing.more:
            return LsResult(
                error=f"Path '{path}': {listing.total:,} entries are too many to list. Use glob with a narrower pattern"
            )
        return LsResult(entries=[_info(place.below(entry.name), entry) for entry in listing.entries])

    async def glob(self, pattern: str, path: str | None) -> GlobResult:
        to_agent = is_made_by_an_agent()
        try:
            place, ops = self._files.at(path or ".")
            if not pattern or ".." in pattern.split("/"):
                raise FileError("The pattern is empty, or has '..' in it.", code="bad_glob", op="glob")
            wanted, shown = files_pattern(pattern), shows(pattern)
            found = [await ops.glob(wanted, path=place.path, limit=MOST_ROWS)]
            if not to_agent and not wanted.endswith("/"):
                found.append(await ops.glob(f"{wanted}/", path=place.path, limit=MOST_ROWS))
        except GlobError as error:
            return GlobResult(error=f"Path '{path or self._files.root}': {error}")
        except WorkspaceError as error:
            return GlobResult(error=directory_error(path or self._files.root, error))
        matches: list[FileInfo] = []
        for entry in (entry for result in found for entry in result.entries):
            relative = _relative(entry.name, place)
            if shown(relative):
                matches.append(_info(place.below(relative) if to_agent else relative, entry))
        is_cut = any(result.more or result.timed_out for result in found)
        truncated = is_cut or any(result.omitted for result in found)  # directories that cannot be read
        # Early releases of Deep Agents do not have the reason.
        has_reason = any(field.name == "truncation_reason" for field in fields(GlobResult))
        why = "budget" if is_cut else "unreadable"
        reason: dict[str, Any] = {"truncation_reason": why} if truncated and has_reason else {}
        return GlobResult(matches=matches, truncated=truncated, **reason)

    async def grep(
        self, pattern: str, path: str | None, glob: str | None, max_count: int | None
    ) -> GrepResult:
        most = MOST_ROWS - 1 if max_count is None else max(0, min(max_count, MOST_ROWS - 1))
        try:
            place, ops = self._files.at(path or ".")
            if glob and "/" in glob:
                glob = place.below(glob.lstrip("/"))  # from the directory searched, and from nowhere else
            found = await ops.grep(
                literal(pattern), path=place.path, glob=glob, output_mode="content", limit=most + 1
            )
        except WorkspaceError as error:
            return GrepResult(error=directory_error(path or self._files.root, error))
        top = place_of("/" if place.within is None else self._files.root, self._files.root)
        matches = [GrepMatch(path=top.below(row.path), line=row.line, text=row.text) for row in found.rows]
        truncated = found.more or found.timed_out or len(matches) > most
        for left in found.omitted:
            if left.reason == "binary_match":
                matches += [GrepMatch(path=top.below(path), line=0, text=BINARY) for path in left.paths]
            # Deep Agents has no word for it; large binary files are not meant to be searched.
            truncated = truncated or left.reason in ("unreadable", "utf16")
        return GrepResult(matches=matches[:most], truncated=truncated)


def _read(path: str, viewed: Viewed, offset: int, limit: int) -> ReadResult:
    if viewed.content is not None:
        return ReadResult(file_data=FileData(content=b64encode(viewed.content).decode(), encoding="base64"))
    if limit <= 0:
        # Early releases of Deep Agents do not tell this from an empty file.
        known = any(field.name == "no_lines_requested" for field in fields(ReadResult))
        asked: dict[str, Any] = {"no_lines_requested": True} if known and viewed.lines else {}
        return ReadResult(file_data=FileData(content="", encoding="utf-8"), **asked)
    if not viewed.lines:
        return ReadResult(file_data=FileData(content="", encoding="utf-8"))
    if not viewed.first:
        return ReadResult(
            error=f"File '{path}': Line offset {offset} exceeds file length ({viewed.lines} lines)"
        )
    body = viewed.body
    if viewed.cut:
        body = f"{body}\n\n{CUT}"
    elif viewed.more:
        body = f"{body}\n\n{NO_ROOM.format(next=viewed.last)}"
    return ReadResult(
        file_data=FileData(content=body, encoding="utf-8"),
        total_lines=viewed.lines,
        start_line=viewed.first,
        end_line=viewed.last,
        next_offset=viewed.last if viewed.last < viewed.lines else None,
    )


def _relative(found: str, place: Place) -> str:
    """Give a path found from the directory searched; it comes from the root of the operations."""
    top = place.path.lstrip("/") if place.within is None else place.within
    return found if top in ("", ".") else found.removeprefix(f"{top}/")


def _info(path: str, entry: Entry) -> FileInfo:
    info = FileInfo(path=path.encode("utf-8", "replace").decode(), is_dir=entry.kind == "dir")
    if entry.kind == "file":
        info["size"] = entry.size_bytes
    if 0 < entry.mtime_ns < 1 << 62:
        info["modified_at"] = datetime.fromtimestamp(entry.mtime_ns // 10**9, UTC).isoformat()
    return info
