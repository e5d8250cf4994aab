"""The public API for workspace files, ``session.files``: pairs of sync and async methods."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, overload

from langchain_daytona_ws._core.files.models import (
    FileDeleted,
    FileEdited,
    FileText,
    FileWritten,
    GlobResult,
    GrepResult,
    Listing,
    OutputMode,
)
from langchain_daytona_ws._core.limits import GLOB_LIMIT, GREP_LIMIT, LIST_LIMIT
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._guest.text import PAGE_LINES
from langchain_daytona_ws._lazy import LazyModule
from langchain_daytona_ws._session.runtime import AsyncRuntime, SyncRuntime

# Imported on first use: most sessions transfer nothing.
if TYPE_CHECKING:
    from langchain_daytona_ws._core.transfers import models as transfers
else:
    transfers = LazyModule("langchain_daytona_ws._core.transfers.models")

Local = str | os.PathLike[str]


class WorkspaceFiles:
    """Read, write, edit, list, glob, grep and delete files of the workspace; upload and download files of this host.

    Paths are relative to the workspace. Most calls are one request to the running sandbox. More requests are needed to
    write or return more than 256 KiB, and to find similar paths if a path is missing. Files on S3 are read and written
    without a sandbox, unless ``fileAccess`` is ``sandbox``.

    After a `FileError` (`PathRefused`, `FileMissing`, `FileUnsuitable`, `EditRefused`, `WriteConflict`) no file has
    changed, with two exceptions. `upload` and `download` may have transferred other files. With the code
    ``write_failed`` the file may have changed; the message describes its content. If the sandbox fails, the methods
    raise the errors of `WorkspaceSession.run`.
    """

    def __init__(
        self,
        sync_runtime: SyncRuntime,
        async_runtime: AsyncRuntime,
        *,
        session: object,
    ) -> None:
        self._session = session  # keeps the session alive: a session without references is closed
        self._sync_ops, self._async_ops = sync_runtime.files, async_runtime.files
        self._sync_transfers, self._async_transfers = sync_runtime.transfers, async_runtime.transfers

    def read(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> FileText:
        """Read a page of numbered lines of a text file of at most 10 MiB.

        Args:
            path: The file.
            offset: The first line, from 1.
            limit: Maximum number of lines. Fewer are returned if they would exceed the configuration's
                ``outputLimitBytes``.
        """
        return run_sync(self._sync_ops.read(path, offset=offset, limit=limit))

    async def aread(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> FileText:
        """Read a page of lines, as `read` does."""
        return await self._async_ops.read(path, offset=offset, limit=limit)

    def upload(
        self, local: Local, path: str = "", *, on_progress: transfers.OnProgress | None = None
    ) -> transfers.Transferred:
        """Upload a file of this host, or a directory with all files below it.

        Contents are streamed: memory use does not depend on their size. An existing file is replaced only when the new
        content is complete. Other files in an existing directory are kept. A file that its owner may execute stays
        executable. If ``local`` is a directory, a symbolic link to a file inside ``local`` is uploaded as a file. Other
        links and special files are not read; they are listed in the result's ``skipped``.

        Args:
            local: The file or directory. It, or a directory above it, may be a symbolic link.
            path: The path of the copy in the workspace. If it ends with ``/``, the copy goes into this directory and
                keeps the name of ``local``. Default: into the workspace directory, with this name.
            on_progress: Called with the `TransferProgress` after each piece. Calls never overlap, but come from other
                threads too if files go directly to or from S3. If ``on_progress`` raises an error, the error is logged,
                and ``on_progress`` is not called again.

        Returns:
            The uploaded files with their hashes, and the entries that were skipped.

        Raises:
            FileError: Reading ``local`` failed (codes ``local_…``), or the workspace refused a file.
            PathRefused: The path leaves the workspace.
            WorkspaceError: Another failure, such as `SandboxUnavailable`. After any error, other files may have been
                uploaded, even if the message states that nothing ran: it is about the failed request.
        """
        return run_sync(self._sync_transfers().upload(local, path, on_progress))

    async def aupload(
        self, local: Local, path: str = "", *, on_progress: transfers.OnProgress | None = None
    ) -> transfers.Transferred:
        """Upload a file or a directory, as `upload` does. ``on_progress`` is called on this loop."""
        return await self._async_transfers().upload(local, path, on_progress)

    @overload
    def download(self, path: str) -> bytes: ...

    @overload
    def download(
        self,
        path: str,
        local: Local,
        *,
        on_progress: transfers.OnProgress | None = None,
        max_bytes: int | None = None,
    ) -> transfers.Transferred: ...

    def download(
        self,
        path: str,
        local: Local | None = None,
        *,
        on_progress: transfers.OnProgress | None = None,
        max_bytes: int | None = None,
    ) -> bytes | transfers.Transferred:
        """Download a file, or a directory with all files below it. Without ``local``, return the content of a file.

        Downloads to ``local`` are streamed: memory use does not depend on their size. A file is written under a
        temporary name. When it is complete, it is renamed, and replaces an existing file. Other files in an existing
        directory are kept. Nothing is written outside of ``local``: no link is created, and below ``local`` no existing
        link is followed. In a downloaded directory, a symbolic link to a file of the workspace is downloaded as a file.

        Args:
            path: The file or directory in the workspace.
            local: The path of the copy on this host; missing directories above it are created. If it ends with ``/``,
                the copy goes into this directory and keeps the name of ``path``. Default: return the content of a file
                of at most 128 MiB; afterwards `write` may replace this file.
            on_progress: Called as by `upload`, if ``local`` is given.
            max_bytes: Maximum size of all files together, in bytes, if ``local`` is given. Default: no limit.

        Returns:
            Without ``local``, the content. Otherwise the downloaded files with their hashes, and the skipped entries:
            for example links, special files, and names that this host can't have.

        Raises:
            PathRefused: The path leaves the workspace.
            FileMissing: The file or directory does not exist.
            FileUnsuitable: The path is a special file or, without ``local``, a directory or a file larger than 128 MiB.
            FileError: Writing ``local`` failed (codes ``local_…``), or the files are larger than ``max_bytes``.
            WriteConflict: The file changed during each of several attempts.
        """
        if local is None:
            return run_sync(self._sync_ops.fetch(path))
        return run_sync(self._sync_transfers().download(path, local, on_progress, max_bytes=max_bytes))

    @overload
    async def adownload(self, path: str) -> bytes: ...

    @overload
    async def adownload(
        self,
        path: str,
        local: Local,
        *,
        on_progress: transfers.OnProgress | None = None,
        max_bytes: int | None = None,
    ) -> transfers.Transferred: ...

    async def adownload(
        self,
        path: str,
        local: Local | None = None,
        *,
        on_progress: transfers.OnProgress | None = None,
        max_bytes: int | None = None,
    ) -> bytes | transfers.Transferred:
        """Download a file or a directory, as `download` does. ``on_progress`` is called on this loop."""
        if local is None:
            return await self._async_ops.fetch(path)
        return await self._async_transfers().download(path, local, on_progress, max_bytes=max_bytes)

    def write(self, path: str, content: str | bytes, *, overwrite: bool = False) -> FileWritten:
        """Write a whole file; create the directories above it.

        Args:
            path: The file.
            content: The whole content.
            overwrite: True: replace an existing file even if this session has not read its current content. Default:
                False.
        """
        return run_sync(self._sync_ops.write(path, content, overwrite=overwrite))

    async def awrite(self, path: str, content: str | bytes, *, overwrite: bool = False) -> FileWritten:
        """Write a whole file, as `write` does."""
        return await self._async_ops.write(path, content, overwrite=overwrite)

    def edit(self, path: str, old_string: str, new_string: str, *, replace_all: bool = False) -> FileEdited:
        """Replace a string in a file. The inserted text gets the file's line ends.

        If the string does not occur, look-alike characters (quotes, dashes, spaces) are treated as equal. If exactly
        one place of the file matches then, it is replaced, and the result names the differences.

        Args:
            path: The file.
            old_string: The text to replace; it must occur exactly once.
            new_string: The replacement.
            replace_all: True: replace every occurrence instead. Default: False.
        """
        return run_sync(self._sync_ops.edit(path, old_string, new_string, replace_all=replace_all))

    async def aedit(
        self, path: str, old_string: str, new_string: str, *, replace_all: bool = False
    ) -> FileEdited:
        """Replace a string, as `edit` does."""
        return await self._async_ops.edit(path, old_string, new_string, replace_all=replace_all)

    def list(self, path: str = ".", *, limit: int = LIST_LIMIT) -> Listing:
        """List one directory, directories first.

        Args:
            path: The directory.
            limit: Maximum number of entries to return.
        """
        return run_sync(self._sync_ops.list(path, limit=limit))

    async def alist(self, path: str = ".", *, limit: int = LIST_LIMIT) -> Listing:
        """List one directory, as `list` does."""
        return await self._async_ops.list(path, limit=limit)

    def glob(self, pattern: str, *, path: str = ".", limit: int = GLOB_LIMIT) -> GlobResult:
        """Find files by name, newest first.

        Args:
            pattern: A glob pattern such as ``**/*.py``.
            path: Directory in which to search.
            limit: Maximum number of paths to return.
        """
        return run_sync(self._sync_ops.glob(pattern, path=path, limit=limit))

    async def aglob(self, pattern: str, *, path: str = ".", limit: int = GLOB_LIMIT) -> GlobResult:
        """Find files by name, as `glob` does."""
        return await self._async_ops.glob(pattern, path=path, limit=limit)

    def grep(
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
        """Search for a regular expression.

        The search runs in the sandbox, with ripgrep if the sandbox has it, otherwise with grep. An S3 workspace is
        searched on this host if possible, unless ``fileAccess`` is ``sandbox``.

        Args:
            pattern: The expression.
            path: File or directory to search.
            glob: Search only files that match: by name or, if the glob contains ``/``, by path below ``path``.
                ``!`` before the glob searches the other files.
            output_mode: ``files_with_matches``, ``content`` or ``count``.
            before: Lines of context before each match, in mode ``content``.
            after: Lines of context after each match, in mode ``content``.
            ignore_case: True: match without regard to case. Default: False.
            limit: Maximum number of files or lines to return.
        """
        operation = self._sync_ops.grep(
            pattern, path=path, glob=glob, output_mode=output_mode, before=before, after=after,
            ignore_case=ignore_case, limit=limit,
        )  # fmt: skip
        return run_sync(operation)

    async def agrep(
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
        """Search for a regular expression, as `grep` does."""
        return await self._async_ops.grep(
            pattern, path=path, glob=glob, output_mode=output_mode, before=before, after=after,
            ignore_case=ignore_case, limit=limit,
        )  # fmt: skip

    def delete(self, path: str) -> FileDeleted:
        """Delete a file, a symbolic link (not its target), or an empty directory.

        Args:
            path: The file, link or directory.
        """
        return run_sync(self._sync_ops.delete(path))

    async def adelete(self, path: str) -> FileDeleted:
        """Delete a file, as `delete` does."""
        return await self._async_ops.delete(path)
