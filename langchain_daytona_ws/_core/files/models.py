"""Results and requests of file operations, and the interface of the two backends: a sandbox, and S3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from langchain_daytona_ws._guest.text import footer
from langchain_daytona_ws.errors import WorkspaceError

OutputMode = Literal["files_with_matches", "content", "count"]
"""What `grep` returns for each match."""

VIEWED_BYTES = 32 << 20  # of a viewed text file


@dataclass(frozen=True, slots=True)
class FileText:
    """A page of numbered lines; ``first`` and ``last`` are 1-based, 0 when the file is empty."""

    path: str
    body: str
    first: int
    last: int
    lines: int
    cut_lines: int
    lossy: bool  # bytes that are not UTF-8 are shown as \xNN
    newline: str  # lf, crlf, mixed
    bom: bool
    size_bytes: int
    mtime_ns: int
    sha256: str

    @property
    def footer(self) -> str:
        return footer(self.first, self.last, self.lines)


@dataclass(frozen=True, slots=True)
class FileView:
    """Lines of a text file, or the ``content`` of a binary file. ``first`` and ``last`` are 1-based, or 0."""

    path: str
    sha256: str
    body: str = ""
    first: int = 0
    last: int = 0
    lines: int = 0
    cut: bool = False  # a single line is shown, and it is longer
    more: bool = False  # not all requested lines fit
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class FileContent:
    """A whole file."""

    path: str
    data: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class FileWritten:
    """The result of a write."""

    path: str
    created: bool
    unchanged: bool  # the file already had exactly this content
    size_bytes: int
    sha256: str
    from_record: bool = False  # the result of an earlier attempt of this call: nothing was written now
    # Style of the replaced content: "bom" (byte order mark), "crlf" (line ends), "bytes" (bytes that are not UTF-8).
    kept: tuple[str, ...] = ()  # the new content has these as well
    gone: tuple[str, ...] = ()  # the new content lacks these


@dataclass(frozen=True, slots=True)
class Difference:
    """A position where the edited text has ``found`` instead of ``requested``."""

    line: int
    column: int
    found: str
    requested: str


@dataclass(frozen=True, slots=True)
class FileEdited:
    """The result of an edit."""

    path: str
    count: int
    lines: tuple[int, ...]  # first lines of the first replacements, 1-based, in the new content
    snippet: str
    size_bytes: int
    sha256: str
    from_record: bool = False
    differences: tuple[Difference, ...] = ()  # the first differences, if the text only looked alike
    mixed: bool = False  # UTF-8 was written into a file of another encoding
    verbatim: bool = False  # \xNN was written as four characters into a file that has bytes shown as \xNN
    before_sha256: str = ""  # of the content that was edited


@dataclass(frozen=True, slots=True)
class FileDeleted:
    """The result of a deletion; ``kind`` is file, dir, link or other."""

    path: str
    kind: str
    from_record: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a listing, or a path from the workspace root in a glob result.

    Names that are not UTF-8 contain lone surrogates: display them with ``paths.shown``.
    """

    name: str
    kind: str  # file, dir, link, other
    size_bytes: int
    mtime_ns: int
    target: str | None = None  # of a link; "" if the target is outside the workspace


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of one directory; ``more`` if ``entries`` is not all of the ``total``."""

    path: str
    entries: tuple[Entry, ...]
    total: int
    more: bool


ReadingKind = Literal["path", "brackets", "commas", "alternatives"]
OmittedReason = Literal["binary_match", "binary", "utf16", "unreadable"]


@dataclass(frozen=True, slots=True)
class Omitted:
    """Files and directories that a search leaves out of its result, for one reason.

    Args:
        reason: ``binary_match``: a binary file matches, and its lines are not shown. These are not searched: a large
            ``binary`` file, a ``utf16`` file if the sandbox has only grep, and an ``unreadable`` path.
        count: The number of paths.
        paths: The first 20 paths.
    """

    reason: OmittedReason
    count: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GlobReading:
    """Another reading of a glob that matches no file.

    Args:
        kind: ``path``: it repeats the searched path. ``brackets``: a name contains the brackets. ``commas`` separate
            globs. ``alternatives``: ``@(a|b)``.
        pattern: The glob to use instead.
        path: A file or directory that this glob matches.
    """

    kind: ReadingKind
    pattern: str
    path: str


@dataclass(frozen=True, slots=True)
class GlobResult:
    """The paths that match a glob."""

    pattern: str
    entries: tuple[Entry, ...]
    total: int
    more: bool
    timed_out: bool
    skipped: tuple[str, ...]  # directories that were not searched, such as node_modules
    omitted: tuple[Omitted, ...] = ()
    hint: str = ""  # another reading of the pattern, if nothing was found


@dataclass(frozen=True, slots=True)
class GrepRow:
    """A file, a line or a count in a search result."""

    path: str
    line: int = 0  # 1-based, in mode content
    is_match: bool = True  # or a line of context
    text: str = ""
    count: int = 0  # of matching lines, in mode count
    column: int = 0  # of the match, 1-based, in bytes, if its line is too long to be shown whole


@dataclass(frozen=True, slots=True)
class GrepResult:
    """The rows that a search found."""

    pattern: str
    mode: OutputMode
    rows: tuple[GrepRow, ...]
    more: bool
    timed_out: bool
    skipped: tuple[str, ...]
    omitted: tuple[Omitted, ...] = ()
    hint: str = ""  # another reading of the pattern, if nothing was found


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
    """A replacement of text, see `FileOperations.edit`; ``max_bytes`` limits the file before and after it."""

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
class GlobQuery:
    """A search for names, see `FileOperations.glob`; ``pattern`` is relative to the searched directory."""

    pattern: str
    limit: int
    limit_bytes: int
    timeout_s: float


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

    async def glob(self, path: str, query: GlobQuery) -> tuple[GlobResult, GlobReading | None]: ...

    async def grep(self, path: str, query: GrepQuery) -> tuple[GrepResult, GlobReading | None]:
        """Search.

        Raises:
            NeedsSandbox: This backend cannot search for it.
        """
        ...

    async def similar(self, path: str) -> Sequence[str]:
        """Return existing paths that are similar to a missing path."""
        ...

    async def exists(self, paths: Sequence[str]) -> Sequence[str]:
        """Return the paths that exist."""
        ...


class BatchBackend(Protocol):
    """Operations on several files in one request; each file has its own result or error."""

    async def fetch_many(
        self, paths: Sequence[str], *, max_bytes: int
    ) -> Sequence[FileContent | WorkspaceError]: ...

    async def write_many(
        self, writes: Sequence[tuple[str, WriteQuery]], *, new_key: Callable[[], str]
    ) -> Sequence[FileWritten | WorkspaceError]: ...
