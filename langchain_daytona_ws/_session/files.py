"""The public API for workspace files, ``session.files``: pairs of sync and async methods."""

from __future__ import annotations

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
from langchain_daytona_ws._core.files.operations import GLOB_LIMIT, GREP_LIMIT, LIST_LIMIT, FileOperations
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._guest.text import PAGE_LINES


class WorkspaceFiles:
    """Read, download, write, edit, list, glob, grep and delete files of the workspace.

    Paths are relative to the workspace. Each call is one request to a warm sandbox, or two if more than 256 KiB are
    written or downloaded. All methods raise `FileError` (`PathRefused`, `FileMissing`, `FileUnsuitable`, `EditRefused`,
    `WriteConflict`) if nothing was changed, and the errors of `WorkspaceSession.run` if the sandbox failed.
    """

    def __init__(self, sync_ops: FileOperations, async_ops: FileOperations, *, session: object) -> None:
        self._session = session  # kept alive: an unreferenced session ends
        self._sync_ops = sync_ops  # coroutines that do not suspend
        self._async_ops = async_ops

    def read(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> FileText:
        """Read a page of numbered lines of a text file of at most 10 MiB.

        Args:
            path: The file.
            offset: The first line, from 1.
            limit: Most lines; fewer if they would exceed the configuration's ``outputLimitBytes``.
        """
        return run_sync(self._sync_ops.read(path, offset=offset, limit=limit))

    async def aread(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> FileText:
        """Read a page of lines, as `read` does."""
        return await self._async_ops.read(path, offset=offset, limit=limit)

    def download(self, path: str) -> bytes:
        """Return the content of a file of at most 128 MiB, text or binary.

        The download counts as a read: the file may then be overwritten.

        Args:
            path: The file.

        Raises:
            FileMissing: The file does not exist.
            FileUnsuitable: The path is a directory, or the file is larger.
            WriteConflict: The file changed during each of several downloads.
        """
        return run_sync(self._sync_ops.fetch(path))

    async def adownload(self, path: str) -> bytes:
        """Return the content of a file, as `download` does."""
        return await self._async_ops.fetch(path)

    def write(self, path: str, content: str | bytes, *, overwrite: bool = False) -> FileWritten:
        """Write a whole file; create the directories above it.

        Args:
            path: The file.
            content: The whole content.
            overwrite: Replace an existing file even if this session has not read its current content.
        """
        return run_sync(self._sync_ops.write(path, content, overwrite=overwrite))

    async def awrite(self, path: str, content: str | bytes, *, overwrite: bool = False) -> FileWritten:
        """Write a whole file, as `write` does."""
        return await self._async_ops.write(path, content, overwrite=overwrite)

    def edit(self, path: str, old_string: str, new_string: str, *, replace_all: bool = False) -> FileEdited:
        """Replace a string in a file, byte for byte; line ends follow the file's style.

        Args:
            path: The file.
            old_string: The text to replace; it must occur exactly once.
            new_string: The replacement.
            replace_all: Replace every occurrence instead.
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
            limit: Most entries to return.
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
            limit: Most paths to return.
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
        """Search for a regular expression, with ripgrep if the sandbox has it, otherwise with grep.

        Args:
            pattern: The expression.
            path: File or directory to search.
            glob: Only files whose name matches.
            output_mode: ``files_with_matches``, ``content`` or ``count``.
            before: Lines of context before each match, in mode ``content``.
            after: Lines of context after each match, in mode ``content``.
            ignore_case: Match without regard to case.
            limit: Most files or lines to return.
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
        """Delete a file, a symbolic link itself, or an empty directory.

        Args:
            path: The file, link or directory.
        """
        return run_sync(self._sync_ops.delete(path))

    async def adelete(self, path: str) -> FileDeleted:
        """Delete a file, as `delete` does."""
        return await self._async_ops.delete(path)
