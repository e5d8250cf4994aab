"""Requests and results of file operations, and the interface of their two backends: a sandbox and S3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from langchain_daytona_ws._guest.text import footer
from langchain_daytona_ws.errors import WorkspaceError

OutputMode = Literal["files_with_matches", "content", "count"]
"""What the rows of a `grep` result contain: paths, lines, or the number of matching lines of each file."""

VIEWED_BYTES = 32 << 20  # largest text file of a `ViewQuery`


@dataclass(frozen=True, slots=True)
class FileText:
    """A page of numbered lines. ``first`` and ``last`` are 1-based line numbers, 0 if the file is empty."""

    path: str
    body: str
    first: int
    last: int
    lines: int  # number of lines of the whole file
    cut_lines: int  # number of lines that are shown in part
    lossy: bool  # some bytes are not UTF-8, and are shown as \xNN
    newline: str  # line ends: lf (also if there are none), crlf or mixed
    bom: bool  # the file begins with a byte order mark
    size_bytes: int
    mtime_ns: int
    sha256: str

    @property
    def footer(self) -> str:
        return footer(self.first, self.last, self.lines)


@dataclass(frozen=True, slots=True)
class FileView:
    """Lines of a text file, or the ``content`` of a binary file. Line numbers are 1-based, 0 without lines."""

    path: str
    sha256: str
    body: str = ""
    first: int = 0
    last: int = 0
    lines: int = 0
    cut: bool = False  # only one line is shown, and its end is left out
    more: bool = False  # not all requested lines fit into ``limit_bytes``
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
    from_record: bool = False  # an earlier attempt of this call made the change
    # Styles of the replaced content: "bom" (byte order mark), "crlf" (line ends), "bytes" (bytes that are not UTF-8).
    kept: tuple[str, ...] = ()  # styles that were added to the new content
    gone: tuple[str, ...] = ()  # styles that the new content lacks


@dataclass(frozen=True, slots=True)
class Difference:
    """A position where the file has ``found``, and ``old_string`` has ``requested``."""

    line: int
    column: int
    found: str
    requested: str


@dataclass(frozen=True, slots=True)
class FileEdited:
    """The result of an edit."""

    path: str
    count: int
    lines: tuple[int, ...]  # the lines where the first replacements begin in the new content, 1-based
    snippet: str
    size_bytes: int
    sha256: str
    from_record: bool = False
    differences: tuple[Difference, ...] = ()  # the first ones; empty if old_string occurs exactly
    mixed: bool = False  # UTF-8 was written into a file of another encoding
    verbatim: bool = False  # \xNN was written as text, but the file has bytes that are shown as \xNN
    before_sha256: str = ""  # hash of the content before the edit; invalid if ``lines`` is empty


@dataclass(frozen=True, slots=True)
class FileDeleted:
    """The result of a deletion; ``kind`` is file, dir, link or other."""

    path: str
    kind: str
    from_record: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a listing or of a glob result. In a glob result, ``name`` is the path from the workspace root.

    Names that are not UTF-8 contain lone surrogates: display them with ``paths.shown``.
    """

    name: str
    kind: str  # file, dir, link, other
    size_bytes: int
    mtime_ns: int
    # The target of a link as it is written; None if it was not read. An absolute target is converted: to "/" and its
    # path in the workspace, or to "" if it is outside the workspace.
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of one directory. ``more``: the directory has further entries."""

    path: str
    entries: tuple[Entry, ...]
    total: int
    more: bool


ReadingKind = Literal["path", "brackets", "commas", "alternatives"]
OmittedReason = Literal["binary_match", "binary", "utf16", "unreadable"]


@dataclass(frozen=True, slots=True)
class Omitted:
    """Files and directories that a search left out of its result, all for the same reason.

    Args:
        reason: ``binary_match``: binary files that match; their lines are not shown. Files with another reason were not
            searched. ``binary``: most of them are large binary files; ``utf16``: the search program does not support
            UTF-16; ``unreadable``: they could not be read.
        count: The number of paths.
        paths: The first 20 paths.
    """

    reason: OmittedReason
    count: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GlobReading:
    """Another interpretation of a glob, which the model may have intended.

    Args:
        kind: ``path``: the glob repeats the searched path. ``brackets``: the brackets are a part of a name. ``commas``:
            commas separate several globs. ``alternatives``: ``@(a|b)`` stands for a or b.
        pattern: The glob to use instead.
        path: A file or directory that ``pattern`` matches.
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
    hint: str = ""  # if nothing was found: a hint about a mistake in the pattern


@dataclass(frozen=True, slots=True)
class GrepRow:
    """A file, a line or a count in a search result."""

    path: str
    line: int = 0  # 1-based, in mode content
    is_match: bool = True  # False: a line of context
    text: str = ""
    count: int = 0  # number of matching lines, in mode count
    column: int = 0  # if the line was cut: where the match begins in the whole line, 1-based, in bytes


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
    hint: str = ""  # if nothing was found: a hint about a mistake in the pattern or the glob


class NeedsSandbox(Exception):
    """Raised by a search on S3 that must run in the sandbox; the message is the reason."""


@dataclass(frozen=True, slots=True)
class ViewQuery:
    """A request to read lines without numbers or, if the file is binary, its whole content.

    Args:
        offset: The first line, 1-based. If it is past the end, the result has no lines.
        limit: Maximum number of lines.
        limit_bytes: Maximum number of bytes of text.
        binary: True: treat the file as binary. False: decide by its content.
        binary_bytes: Maximum size of a binary file.
        max_bytes: Maximum size of a text file.
    """

    offset: int
    limit: int
    limit_bytes: int
    binary: bool
    binary_bytes: int
    max_bytes: int = VIEWED_BYTES


@dataclass(frozen=True, slots=True)
class EditQuery:
    """A replacement of text, see `FileOperations.edit`; ``max_bytes`` limits the file's size before and after."""

    old: str
    new: str
    replace_all: bool
    exact: bool
    max_bytes: int


@dataclass(frozen=True, slots=True)
class WriteQuery:
    """A request to write a whole file.

    Args:
        content: The new content.
        overwrite: True: replace any existing content.
        expected_sha256: Without ``overwrite``: the hash of the content that may be replaced; None: replace no file.
        as_text: True: keep the byte order mark and the line ends of the replaced text.
        max_bytes: Maximum size of an existing file whose byte order mark and line ends are kept.
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
    """File operations. Paths are relative to the workspace, and normalised; ``"."`` is the workspace itself.

    In the result of a read, view, fetch, write or edit, ``path`` is the real path, in which symlinks are resolved.
    Repeated calls with the same ``key`` apply a change once. Most errors come from `_core.files.errors.file_error`.
    """

    async def read(
        self, path: str, *, offset: int, limit: int, limit_bytes: int, max_bytes: int
    ) -> FileText: ...

    async def view(self, path: str, query: ViewQuery) -> FileView: ...

    async def fetch(self, path: str, *, max_bytes: int) -> FileContent: ...

    async def write(self, path: str, query: WriteQuery, *, key: str) -> FileWritten: ...

    async def edit(self, path: str, query: EditQuery, *, key: str) -> FileEdited:
        """Edit a file. If an earlier attempt edited it, the result may lack the positions (``lines``)."""
        ...

    async def delete(self, path: str, *, key: str) -> FileDeleted: ...

    async def list(self, path: str, *, limit: int, limit_bytes: int) -> Listing: ...

    async def glob(self, path: str, query: GlobQuery) -> tuple[GlobResult, GlobReading | None]: ...

    async def grep(self, path: str, query: GrepQuery) -> tuple[GrepResult, GlobReading | None]:
        """Search the contents of files.

        Raises:
            NeedsSandbox: This backend cannot run the search.
        """
        ...

    async def similar(self, path: str) -> Sequence[str]:
        """Return existing paths that are similar to a missing path."""
        ...

    async def exists(self, paths: Sequence[str]) -> Sequence[str]:
        """Return the paths that exist."""
        ...


class BatchBackend(Protocol):
    """Operations on many files in few requests. Each file has its own result or error.

    If a request of `fetch_many` fails, its error is raised. If a request of `write_many` fails, its files and all files
    after them get its error, because earlier requests may have written files.
    """

    async def fetch_many(
        self, paths: Sequence[str], *, max_bytes: int
    ) -> Sequence[FileContent | WorkspaceError]: ...

    async def write_many(
        self, writes: Sequence[tuple[str, WriteQuery]], *, new_key: Callable[[], str]
    ) -> Sequence[FileWritten | WorkspaceError]: ...
