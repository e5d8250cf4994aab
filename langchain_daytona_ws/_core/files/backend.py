"""The interface of file operations on one place that stores a workspace: a sandbox's disk, or S3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from langchain_daytona_ws._core.files.models import (
    Doubt,
    FileContent,
    FileDeleted,
    FileEdited,
    FileText,
    FileView,
    FileWritten,
    GlobResult,
    GrepResult,
    Listing,
    OutputMode,
)

VIEWED_BYTES = 32 << 20  # of a viewed text file


class NeedsSandbox(Exception):
    """A search on S3 that must run in the sandbox; the text has the reason."""


@dataclass(frozen=True, slots=True)
class ViewQuery:
    """The lines to read without numbers, or the limits of a binary file.

    Args:
        offset: The first line, 1-based; past the end there are no lines.
        limit: Most lines.
        limit_bytes: Most bytes of text.
        binary: Whether to treat any content as binary.
        binary_bytes: Largest binary file.
        max_bytes: Largest text file.
    """

    offset: int
    limit: int
    limit_bytes: int
    binary: bool
    binary_bytes: int
    max_bytes: int = VIEWED_BYTES


@dataclass(frozen=True, slots=True)
class EditQuery:
    """A replacement of text, see `FileOperations.edit`.

    Args:
        old: The text to replace.
        new: The replacement.
        replace_all: Replace every occurrence; otherwise ``old`` must occur once.
        exact: Whether text that only looks like ``old`` is left alone.
        max_bytes: Largest file, before and after the edit.
    """

    old: str
    new: str
    replace_all: bool
    exact: bool
    max_bytes: int


@dataclass(frozen=True, slots=True)
class WriteQuery:
    """A whole content to write.

    Args:
        content: The bytes.
        overwrite: Replace any content.
        expected_sha256: Without ``overwrite``, the content that may be replaced; None for no content.
        as_text: Keep the byte order mark and the line ends of the replaced text.
        max_bytes: Largest file of which the style is kept.
    """

    content: bytes
    overwrite: bool
    expected_sha256: str | None
    as_text: bool
    max_bytes: int


@dataclass(frozen=True, slots=True)
class GrepQuery:
    """A search for a regular expression, see `FileOperations.grep`; ``glob`` is relative to the searched directory."""

    pattern: str
    glob: str | None
    mode: OutputMode
    before: int
    after: int
    ignore_case: bool
    limit: int
    limit_bytes: int
    timeout_s: float


class FileBackend(Protocol):
    """File operations by paths that are relative to the workspace, normalised, ``"."`` for the workspace itself.

    The ``path`` of a result is the path that the symlinks of the requested path lead to. A change is applied once for
    its ``key``, for any number of attempts. All methods raise the errors of this package; those of
    `_core.files.errors.file_error` describe a refused operation.
    """

    async def read(
        self, path: str, *, offset: int, limit: int, limit_bytes: int, max_bytes: int
    ) -> FileText: ...

    async def view(self, path: str, query: ViewQuery) -> FileView: ...

    async def fetch(self, path: str, *, max_bytes: int) -> FileContent: ...

    async def write(self, path: str, query: WriteQuery, *, key: str) -> FileWritten: ...

    async def edit(self, path: str, query: EditQuery, *, key: str) -> FileEdited:
        """Edit a file. If an earlier attempt did it, the result may lack the positions (``lines``)."""
        ...

    async def delete(self, path: str, *, key: str) -> FileDeleted: ...

    async def list(self, path: str, *, limit: int, limit_bytes: int) -> Listing: ...

    async def glob(
        self, path: str, pattern: str, *, limit: int, limit_bytes: int, timeout_s: float
    ) -> tuple[GlobResult, Doubt | None]: ...

    async def grep(self, path: str, query: GrepQuery) -> tuple[GrepResult, Doubt | None]:
        """Search.

        Raises:
            NeedsSandbox: This backend cannot search for it.
        """
        ...

    async def near(self, path: str) -> Sequence[str]:
        """Return existing paths that are similar to a missing path."""
        ...

    async def exists(self, paths: Sequence[str]) -> Sequence[str]:
        """Return the paths that exist."""
        ...
