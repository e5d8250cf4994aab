"""Select the files of a search, and parse the output of ripgrep and grep into a limited number of rows."""

from __future__ import annotations

import os

from langchain_daytona_ws._guest.match import BRACKETS, SKIPPED, Glob, GlobError, readings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from langchain_daytona_ws._guest.match import Kind

LINE_CHARS = 500  # maximum that is shown of a line
LINE_BYTES = 4 * LINE_CHARS  # maximum size of LINE_CHARS characters in UTF-8
BEFORE_CHARS = 150  # shown before the match, if the line is cut at both ends
MATCH_CHARS = 150  # minimum that is shown from the match on, if the line is cut only at its end
CUT = "... [line cut]"
RECORD_BYTES = (
    1 << 20
)  # a record of the program's output that has no end after this size is not read completely


class Filter:
    """A glob that limits a search to some files.

    A glob without ``/`` matches names at any depth. ``!glob`` selects the files that ``glob`` does not match.
    """

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.negated = pattern.startswith("!")
        pattern = pattern[self.negated :]
        if pattern.endswith("/"):
            pattern += "**"
        elif "/" not in pattern:
            pattern = "**/" + pattern
        if pattern.endswith("/**"):
            pattern += "/*"  # match the files in a directory, but not a file with the directory's name (as in ripgrep)
        self._pattern = pattern
        self._glob = Glob(pattern)

    def matches(self, path: str) -> bool:
        return self._glob.matches(path) is not self.negated

    def has_literal(self, name: str) -> bool:
        return not self.negated and self._glob.has_literal(name)


class Selection:
    """Decides during a walk which files a search reads, and which directories it enters.

    Paths are relative to ``base``, which ends in ``/`` unless it is "". A reading is another glob that the model may
    have meant, see `match.readings`.
    """

    def __init__(self, glob: Filter | None, base: str) -> None:
        self.skipped: list[str] = []  # directories directly in ``base`` that were not entered
        self._glob = glob
        self._base = base
        self._skipping = [name for name in SKIPPED if glob is None or not glob.has_literal(name)]
        self._reading: tuple[Kind, str, str] | None = None
        self._readings: list[tuple[Kind, str, Filter]] = []
        for kind, reading in [] if glob is None or glob.negated else readings(glob.text, base.rstrip("/")):
            try:
                self._readings.append((kind, reading, Filter(reading)))
            except GlobError:  # this reading is not a valid glob
                continue

    def enters(self, path: str, name: str) -> bool:
        if name not in self._skipping:
            return True
        if path == name:
            self.skipped.append(name)
        return False

    def includes(self, path: str) -> bool:
        """Return whether a file is searched. If not, remember the first file that another reading matches."""
        if self._glob is None or self._glob.matches(path):
            return True
        if self._reading is None:
            matching = ((kind, text) for kind, text, reading in self._readings if reading.matches(path))
            self._reading = next(((kind, text, self._base + path) for kind, text in matching), None)
        return False

    def reading(self, *, matched: bool) -> tuple[Kind, str, str] | None:
        """Return a reading that matches a file: its kind, its pattern, and the file's path; None if there is none.

        Args:
            matched: True if the glob itself has matched files. Then only a reading of the kind BRACKETS (``[id]`` is
                a directory's name) is returned: as a class of characters, the brackets may have matched other files.
        """
        return None if self._reading is None or (matched and self._reading[0] != BRACKETS) else self._reading


class Rows:
    """The rows found so far. ``full``: a row was left out, because a limit would be exceeded.

    ``base`` is the prefix of each path. ``is_shown`` is called with the path of each matching file; if it returns
    False, the rows of the file are left out.
    """

    def __init__(
        self, base: str, limit: int, limit_bytes: int, is_shown: Callable[[bytes], bool] | None = None
    ) -> None:
        self.items: list[list[Any]] = []
        self.full = False
        self.lost = False  # matches may be left out, for example because a line is too long to be read
        self.cut: dict[bytes, None] = {}  # files in which the position of a match in a long line is unknown
        self._base = base
        self._limit = limit
        self._bytes_left = limit_bytes
        self._is_shown = is_shown
        self._latest: tuple[bytes, bool] = (b"", True)

    def add(self, path: bytes, *rest: object) -> None:
        """Add a row, unless its file is not shown or a limit would be exceeded. The first row has no size limit."""
        if self._is_shown is not None:
            if path != self._latest[0]:
                self._latest = path, self._is_shown(path)
            if not self._latest[1]:
                return
        self._bytes_left -= len(path) + sum(
            len(part.encode("utf-8")) if isinstance(part, str) else 8 for part in rest
        )
        if len(self.items) >= self._limit or (self._bytes_left < 0 and self.items):
            self.full = True
            return
        self.items.append([self.shown_path(path), *rest])

    def add_line(self, path: bytes, number: int, line: bytes, match: int | None) -> None:
        """Add a line of mode ``content``. ``match`` is the offset of the match in the line; None for a context line."""
        text, column = excerpt(line, match or 0)
        self.add(path, number, match is not None, text, *([column] if column and match is not None else []))

    def shown_path(self, path: bytes) -> str:
        return self._base + os.fsdecode(path[2:] if path.startswith(b"./") else path)

    def sorted(self) -> list[list[Any]]:
        return sorted(self.items, key=lambda row: (str(row[0]), row[1] if len(row) > 2 else 0))


def excerpt(line: bytes, match: int) -> tuple[str, int]:
    """Return the text to show for a line, and the column of the match (in bytes, from 1); 0 if the line is not cut."""
    line = line.rstrip(b"\r\n")
    head = line[:LINE_BYTES]
    text = _shown(head)
    if len(text) <= LINE_CHARS and len(head) == len(line):
        return text, 0
    if match <= LINE_BYTES and len(_shown(line[:match])) <= LINE_CHARS - MATCH_CHARS:
        return text[:LINE_CHARS] + CUT, match + 1
    start = max(match - 4 * BEFORE_CHARS, 0)
    while start < match and line[start] & 0xC0 == 0x80:  # in the middle of a character
        start += 1
    before = _shown(line[start:match])[-BEFORE_CHARS:]
    rest = line[match : match + LINE_BYTES]
    after, room = _shown(rest), LINE_CHARS - len(before)
    is_end = len(after) <= room and match + len(rest) == len(line)
    return f"...{before}{after[:room]}{'' if is_end else CUT}", match + 1


def _shown(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


class _Records:
    """Split a stream into records; call ``handle`` with each, or ``long`` for a record whose end has not come
    after RECORD_BYTES.
    """

    def __init__(self, handle: Callable[[bytes], None], long: Callable[[], None], end: bytes) -> None:
        self._handle = handle
        self._long = long
        self._end = end
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> None:
        pieces = (self._rest + chunk).split(self._end)
        self._rest = pieces.pop()
        for piece in pieces:
            if self._skipping:
                self._skipping = False
            else:
                self._handle(piece)
        if len(self._rest) > RECORD_BYTES:
            self._rest = b""
            if not self._skipping:
                self._skipping = True
                self._long()


def _ripgrep_content(rows: Rows) -> _Records:
    import json

    path = b""

    def handle(record: bytes) -> None:
        nonlocal path
        event = json.loads(record)
        data: dict[str, Any] = event["data"]
        if event["type"] == "begin":
            path = _bytes(data["path"])
        elif event["type"] in ("match", "context"):
            found = data["submatches"][0]["start"] if event["type"] == "match" and data["submatches"] else 0
            match = found if event["type"] == "match" else None
            rows.add_line(_bytes(data["path"]), data["line_number"], _bytes(data["lines"]), match)

    def long() -> None:
        rows.lost = True
        rows.cut[path] = None

    return _Records(handle, long, b"\n")


def _bytes(field: dict[str, str]) -> bytes:
    if "text" in field:
        return field["text"].encode("utf-8")
    import base64

    return base64.b64decode(field["bytes"])


def _names(rows: Rows) -> _Records:
    return _Records(rows.add, lambda: None, b"\0")


class _PathRecords:
    """Parse ``path NUL rest NEWLINE`` records, whose path may contain newlines."""

    def __init__(self, handle: Callable[[bytes, bytes], None]) -> None:
        self._handle = handle
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        data = self._rest + chunk
        at = 0
        while True:
            if data.startswith(b"--\n", at):  # printed by grep between groups of lines; paths begin with ./
                at += 3
            middle = data.find(b"\0", at)
            end = data.find(b"\n", middle) if middle >= 0 else -1
            if end < 0:
                break
            self._handle(data[at:middle], data[middle + 1 : end])
            at = end + 1
        # Of a long line only the head is kept, since no more is shown.
        self._rest = data[at : at + RECORD_BYTES]


def _grep_content(rows: Rows) -> _PathRecords:
    def handle(path: bytes, rest: bytes) -> None:
        digits = len(rest) - len(rest.lstrip(b"0123456789"))
        is_match, line = rest[digits : digits + 1] == b":", rest[digits + 1 :]
        rows.add_line(path, int(rest[:digits] or 0), line, 0 if is_match else None)
        if is_match and len(line) > LINE_CHARS:  # grep does not print the position
            rows.cut[path] = None

    return _PathRecords(handle)


def _counts(rows: Rows) -> _PathRecords:
    def handle(path: bytes, rest: bytes) -> None:
        count = int(rest) if rest.isdigit() else 0
        if count:
            rows.add(path, count)

    return _PathRecords(handle)


def offsets(handle: Callable[[int, int], Any]) -> _PathRecords:
    """Parse the output of ripgrep or grep with ``-o -b -n``; call ``handle`` with each match's line and file offset."""

    def parse(_path: bytes, rest: bytes) -> None:
        line, offset = rest.split(b":", 2)[:2]
        if line.isdigit() and offset.isdigit():
            handle(int(line), int(offset))

    return _PathRecords(parse)


READERS: dict[tuple[str, str], Callable[[Rows], Any]] = {
    ("rg", "content"): _ripgrep_content,
    ("rg", "files_with_matches"): _names,
    ("rg", "count"): _counts,
    ("grep", "content"): _grep_content,
    ("grep", "files_with_matches"): _names,
    ("grep", "count"): _counts,
}
