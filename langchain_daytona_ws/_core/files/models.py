"""Results of file operations, and the reader that checks the answers of a sandbox, which may be hostile."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_daytona_ws._guest.doubt import KINDS as DOUBTS
from langchain_daytona_ws._guest.omitted import NAMED, REASONS
from langchain_daytona_ws._guest.text import footer
from langchain_daytona_ws.errors import SandboxError

OutputMode = Literal["files_with_matches", "content", "count"]

MAX_NUMBER = 1 << 62
MAX_PATH = 8192  # characters; PATH_MAX is 4096 bytes
MAX_ROWS = 10_000
MAX_TEXT = 4 << 20  # characters
KINDS = ("file", "dir", "link", "other")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


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


class Reply:
    """An answer of the sandbox, which may be hostile: any unexpected value raises a `SandboxError`."""

    def __init__(self, op: str, answer: object) -> None:
        self.op = op
        if not isinstance(answer, Mapping):
            raise self.malformed("answer")
        self._answer: Mapping[Any, Any] = answer

    def malformed(self, part: str) -> SandboxError:
        """Return the error for an answer with an invalid part."""
        return SandboxError(
            f"The sandbox returned an invalid answer to '{self.op}' ({part}). "
            "A process in it may have changed its Python.",
            code="garbled_answer",
            op=self.op,
            for_model=f"The sandbox returned an invalid answer to '{self.op}'. Use a shell command instead.",
        )

    def __contains__(self, name: str) -> bool:
        return self._answer.get(name) is not None

    def content(self, name: str, most: int) -> bytes:
        """Return bytes: as they are from a guest on the host, decoded from base64 from the sandbox."""
        value = self._answer.get(name)
        if not isinstance(value, bytes):
            try:
                value = binascii.a2b_base64(self._raw(value, name, 2 * most + 4), strict_mode=True)
            except ValueError:
                raise self.malformed(name) from None
        if len(value) > most:
            raise self.malformed(name)
        return value

    @property
    def is_from_record(self) -> bool:
        """Whether the answer was recorded by an earlier attempt of the call."""
        return self._answer.get("from_record") is True

    def flag(self, name: str) -> bool:
        return self._flag(self._answer.get(name), name)

    def number(self, name: str, least: int = 0) -> int:
        return self._number(self._answer.get(name), name, least=least)

    def numbers(self, name: str) -> tuple[int, ...]:
        return tuple(self._number(value, name) for value in self._list(name))

    def raw(self, name: str, most: int = MAX_PATH) -> str:
        """Return a string unchanged, with any lone surrogates: a name."""
        return self._raw(self._answer.get(name), name, most)

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """Return a string that can be encoded: content."""
        return _encodable(self.raw(name, most))

    def maybe(self, name: str) -> str:
        """Return a short text; ``""`` if it is missing."""
        value = self._answer.get(name)
        return "" if value is None else _encodable(self._raw(value, name, 4096))

    def sha256(self, name: str) -> str:
        value = self.raw(name)
        if not _SHA256.fullmatch(value):
            raise self.malformed(name)
        return value

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(self._raw(value, name, MAX_PATH) for value in self._list(name))

    def omitted(self, name: str) -> tuple[Omitted, ...]:
        value = self._answer.get(name)
        if not isinstance(value, Mapping):
            raise self.malformed(name)
        return tuple(self._omitted(value[reason], reason, name) for reason in REASONS if reason in value)

    def doubt(self, name: str) -> Doubt | None:
        value = self._answer.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 3:
            raise self.malformed(name)
        kinds: tuple[DoubtKind, ...] = DOUBTS
        kind = next((kind for kind in kinds if kind == value[0]), None)
        if kind is None:
            raise self.malformed(name)
        return Doubt(kind, self._raw(value[1], name, MAX_PATH), self._raw(value[2], name, MAX_PATH))

    def _omitted(self, value: object, reason: OmittedReason, where: str) -> Omitted:
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
            raise self.malformed(where)
        count, paths = self._number(value[0], where), value[1]
        if not 0 < len(paths) <= min(count, NAMED):
            raise self.malformed(where)
        return Omitted(reason, count, tuple(self._raw(path, where, MAX_PATH) for path in paths))

    def styles(self, name: str) -> tuple[str, ...]:
        """Return the style names of a file; an empty tuple if the field is missing."""
        found = self.names(name) if name in self else ()
        if not set(found) <= {"bom", "crlf", "bytes"}:
            raise self.malformed(name)
        return found

    def differences(self, name: str) -> tuple[Difference, ...]:
        return tuple(self._difference(row, name) for row in self._list(name)) if name in self else ()

    def entries(self, name: str) -> tuple[Entry, ...]:
        return tuple(self._entry(row, name) for row in self._list(name))

    def grep_rows(self, name: str, mode: OutputMode) -> tuple[GrepRow, ...]:
        return tuple(self._grep_row(row, name, mode) for row in self._list(name))

    def _difference(self, row: object, where: str) -> Difference:
        if not isinstance(row, list) or len(row) != 4:
            raise self.malformed(where)
        line, column = self._number(row[0], where), self._number(row[1], where)
        return Difference(line, column, self._raw(row[2], where, 64), self._raw(row[3], where, 64))

    def _entry(self, row: object, where: str) -> Entry:
        if not isinstance(row, list) or len(row) not in (4, 5) or row[1] not in KINDS:
            raise self.malformed(where)
        target = row[4] if len(row) == 5 and row[4] is not None else None
        return Entry(
            name=self._raw(row[0], where, MAX_PATH),
            kind=str(row[1]),
            size_bytes=self._number(row[2], where),
            mtime_ns=self._number(row[3], where, least=-MAX_NUMBER),
            target=None if target is None else self._raw(target, where, MAX_PATH),
        )

    def _grep_row(self, row: object, where: str, mode: OutputMode) -> GrepRow:
        sizes = {"files_with_matches": (1,), "count": (2,), "content": (4, 5)}[mode]
        if not isinstance(row, list) or len(row) not in sizes:
            raise self.malformed(where)
        path = self._raw(row[0], where, MAX_PATH)
        if mode == "files_with_matches":
            return GrepRow(path)
        number = self._number(row[1], where)
        if mode == "count":
            return GrepRow(path, count=number)
        text = _encodable(self._raw(row[3], where, 65536))
        is_match, column = self._flag(row[2], where), self._number(row[4], where) if len(row) == 5 else 0
        return GrepRow(path, line=number, is_match=is_match, text=text, column=column)

    def _list(self, name: str) -> list[object]:
        value = self._answer.get(name)
        if not isinstance(value, list) or len(value) > MAX_ROWS:
            raise self.malformed(name)
        return value

    def _flag(self, value: object, where: str) -> bool:
        if not isinstance(value, bool):
            raise self.malformed(where)
        return value

    def _number(self, value: object, where: str, least: int = 0) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_NUMBER:
            raise self.malformed(where)
        return value

    def _raw(self, value: object, where: str, most: int) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise self.malformed(where)
        return value


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
