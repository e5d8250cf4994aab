"""Results of file operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from langchain_daytona_ws._guest.text import footer

OutputMode = Literal["files_with_matches", "content", "count"]


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
    from_record: bool = (
        False  # the recorded result of an earlier attempt of this call; nothing was written now
    )
    # Style of the replaced content: "bom", a byte order mark; "crlf", line ends; "bytes", bytes that are not UTF-8.
    kept: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


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

    Names that are not UTF-8 contain lone surrogates: display them with ``names.shown``.
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


DoubtKind = Literal["path", "brackets", "commas", "alternatives"]
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
class Doubt:
    """Another reading of a glob that matches no file.

    Args:
        kind: ``path``: it repeats the searched path. ``brackets``: a name contains the brackets. ``commas`` separate
            globs. ``alternatives``: ``@(a|b)``.
        pattern: The glob to use instead.
        path: A file or directory that this glob matches.
    """

    kind: DoubtKind
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
