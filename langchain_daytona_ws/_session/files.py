"""``session.files``: the file operations as pairs of sync and async methods."""

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
from langchain_daytona_ws._core.files.operations import GLOB_LIMIT, GREP_LIMIT, LIST_LIMIT, FileOps
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._guest.text import PAGE_LINES


class WorkspaceFiles:
    """Read, download, write, edit, list, glob, grep and delete files of the workspace.

    Paths are relative to the workspace. Each call is one request to a warm sandbox, two where more than 256 KiB
    are written or downloaded. All raise `FileError` (`PathRefused`, `FileMissing`, `FileUnsuitable`, `EditRefused`,
    `WriteConflict`) when nothing was changed, and what `WorkspaceSession.run` raises when the sandbox is at fault.
    """

    def __init__(self, sync_ops: FileOps, async_ops: FileOps) -> None:
        self.sync_ops = sync_ops  # coroutines that do not suspend
        self.async_ops = async_ops

    def read(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> FileText:
        """Read a page of numbered lines of a text file of at most 10 MiB.

        Args:
            path: The file.
            offset: The first line, from 1.
            limit: How many lines; fewer when they would exceed the configuration's ``outputLimitBytes``.
        """
        return run_sync(self.sync_ops.read(path, offset=offset, limit=limit))

    async def aread(self, path: str, *, offset: int = 1, limit: int = PAGE_LINES) -> FileText:
        """Read as `read` does."""
        return await self.async_ops.read(path, offset=offset, limit=limit)

    def download(self, path: str) -> bytes:
        """Get all of a file of at most 128 MiB, text or not, as it is.

        It counts as read: what was downloaded may be written anew.

        Args:
            path: The file.

        Raises:
            FileMissing: There is none.
            FileUnsuitable: It is a directory, or larger.
            WriteConflict: It changed each time while it came over.
        """
        return run_sync(self.sync_ops.fetch(path))

    async def adownload(self, path: str) -> bytes:
        """Get a file as `download` does."""
        return await self.async_ops.fetch(path)

    def write(self, path: str, content: str | bytes, *, overwrite: bool = False) -> FileWritten:
        """Write a whole file, and the directories above it.

        Args:
            path: The file.
            content: All of it.
            overwrite: Replace an existing file although this session has not read it as it is now.
        """
        return run_sync(self.sync_ops.write(path, content, overwrite=overwrite))

    async def awrite(self, path: str, content: str | bytes, *, overwrite: bool = False) -> FileWritten:
        """Write as `write` does."""
        return await self.async_ops.write(path, content, overwrite=overwrite)

    def edit(self, path: str, old_string: str, new_string: str, *, replace_all: bool = False) -> FileEdited:
        """Replace a string, byte for byte, in the file's own style of line ends.

        Args:
            path: The file.
            old_string: What to replace; it must occur exactly once.
            new_string: What to put there.
            replace_all: Replace every occurrence instead.
        """
        return run_sync(self.sync_ops.edit(path, old_string, new_string, replace_all=replace_all))

    async def aedit(
        self, path: str, old_string: str, new_string: str, *, replace_all: bool = False
    ) -> FileEdited:
        """Edit as `edit` does."""
        return await self.async_ops.edit(path, old_string, new_string, replace_all=replace_all)

    def list(self, path: str = ".", *, limit: int = LIST_LIMIT) -> Listing:
        """List one directory, directories first.

        Args:
            path: The directory.
            limit: Most entries to return.
        """
        return run_sync(self.sync_ops.list(path, limit=limit))

    async def alist(self, path: str = ".", *, limit: int = LIST_LIMIT) -> Listing:
        """List as `list` does."""
        return await self.async_ops.list(path, limit=limit)

    def glob(self, pattern: str, *, path: str = ".", limit: int = GLOB_LIMIT) -> GlobResult:
        """Find files by name, newest first.

        Args:
            pattern: Such as ``**/*.py``.
            path: Directory to look below.
            limit: Most paths to return.
        """
        return run_sync(self.sync_ops.glob(pattern, path=path, limit=limit))

    async def aglob(self, pattern: str, *, path: str = ".", limit: int = GLOB_LIMIT) -> GlobResult:
        """Find as `glob` does."""
        return await self.async_ops.glob(pattern, path=path, limit=limit)

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
        """Search for a regular expression, with ripgrep where the sandbox has it, otherwise with grep.

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
        work = self.sync_ops.grep(
            pattern, path=path, glob=glob, output_mode=output_mode, before=before, after=after,
            ignore_case=ignore_case, limit=limit,
        )  # fmt: skip
        return run_sync(work)

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
        """Search as `grep` does."""
        return await self.async_ops.grep(
            pattern, path=path, glob=glob, output_mode=output_mode, before=before, after=after,
            ignore_case=ignore_case, limit=limit,
        )  # fmt: skip

    def delete(self, path: str) -> FileDeleted:
        """Delete a file, a symbolic link itself, or an empty directory.

        Args:
            path: What to delete.
        """
        return run_sync(self.sync_ops.delete(path))

    async def adelete(self, path: str) -> FileDeleted:
        """Delete as `delete` does."""
        return await self.async_ops.delete(path)
