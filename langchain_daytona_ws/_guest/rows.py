"""Read what ripgrep and grep print, piece by piece, into bounded rows."""

from __future__ import annotations

import os

from langchain_daytona_ws._guest.match import Glob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

LINE_CHARS = 500  # of a matching line are shown
LINE_BYTES = 4 * LINE_CHARS  # so many they have at most
BEFORE_CHARS = 150  # of them before the match, where the line is cut on both sides
MATCH_CHARS = 150  # of them at least from the match on
CUT = "... [line cut]"
RECORD_BYTES = 1 << 20  # a longer one (one long line) is not read as a whole


class Filter:
    """The glob that narrows a search: without ``/`` for names at any depth, turned round by ``!``."""

    def __init__(self, pattern: str) -> None:
        self.negated = pattern.startswith("!")
        pattern = pattern[self.negated :]
        if pattern.endswith("/"):
            pattern += "**"
        elif "/" not in pattern:
            pattern = "**/" + pattern
        if pattern.endswith("/**"):
            pattern += "/*"  # what is in a directory, and not a file of its name: as ripgrep reads it
        self._pattern = pattern
        self._glob = Glob(pattern)

    def matches(self, path: str) -> bool:
        return self._glob.matches(path) is not self.negated

    def names(self, name: str) -> bool:
        return not self.negated and self._glob.names(name)


class Rows:
    """The rows found so far; ``full`` once a limit has left something out.

    Args:
        base: Put before each path.
        limit: Most rows.
        limit_bytes: Most bytes of them.
        is_shown: Asked once for each file that matches, by its path as given to `add`: False leaves out its rows.
    """

    def __init__(
        self, base: str, limit: int, limit_bytes: int, is_shown: Callable[[bytes], bool] | None = None
    ) -> None:
        self.items: list[list[object]] = []
        self.full = False
        self.lost = False  # a match on a line too long to be read
        self.cut: dict[bytes, None] = {}  # files with a match whose place in a long line is not known
        self._base = base
        self._limit = limit
        self._left = limit_bytes
        self._is_shown = is_shown
        self._latest: tuple[bytes, bool] = (b"", True)

    def add(self, path: bytes, *rest: object) -> None:
        """Add a row: what stands after its path."""
        if self._is_shown is not None:
            if path != self._latest[0]:
                self._latest = path, self._is_shown(path)
            if not self._latest[1]:
                return
        self._left -= len(path) + sum(
            len(part.encode("utf-8")) if isinstance(part, str) else 8 for part in rest
        )
        if len(self.items) >= self._limit or (self._left < 0 and self.items):
            self.full = True
            return
        self.items.append([self.named(path), *rest])

    def add_line(self, path: bytes, number: int, line: bytes, match: int | None) -> None:
        """Add a line in mode ``content``: ``match`` is where in it the match begins, None for a line of context."""
        text, column = excerpt(line, match or 0)
        self.add(path, number, match is not None, text, *([column] if column and match is not None else []))

    def named(self, path: bytes) -> str:
        """Return a path as results have it."""
        return self._base + os.fsdecode(path[2:] if path.startswith(b"./") else path)

    def sorted(self) -> list[list[object]]:
        return sorted(self.items, key=lambda row: (str(row[0]), row[1] if len(row) > 2 else 0))


def excerpt(line: bytes, match: int) -> tuple[str, int]:
    """Return a line as it is shown, and the column (in bytes, from 1) of the match where it was cut, otherwise 0."""
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
    """Cut a stream into records; one over the limit is passed over, and only its head is given to ``long``."""

    def __init__(self, take: Callable[[bytes], None], long: Callable[[], None], end: bytes) -> None:
        self._take = take
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
                self._take(piece)
        if len(self._rest) > RECORD_BYTES:
            self._rest = b""
            if not self._skipping:
                self._skipping = True
                self._long()


def _ripgrep_content(rows: Rows) -> _Records:
    import json

    path = b""

    def take(record: bytes) -> None:
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

    return _Records(take, long, b"\n")


def _bytes(field: dict[str, str]) -> bytes:
    if "text" in field:
        return field["text"].encode("utf-8")
    import base64

    return base64.b64decode(field["bytes"])


def _names(rows: Rows) -> _Records:
    return _Records(rows.add, lambda: None, b"\0")


class _Named:
    """Read ``path NUL rest NEWLINE`` records, where the path itself may hold newlines."""

    def __init__(self, take: Callable[[bytes, bytes], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        data = self._rest + chunk
        at = 0
        while True:
            if data.startswith(b"--\n", at):  # between groups of context; paths start with ./
                at += 3
            middle = data.find(b"\0", at)
            end = data.find(b"\n", middle) if middle >= 0 else -1
            if end < 0:
                break
            self._take(data[at:middle], data[middle + 1 : end])
            at = end + 1
        # The head of an overlong line is all that will be shown of it.
        self._rest = data[at : at + RECORD_BYTES]


def _grep_content(rows: Rows) -> _Named:
    def take(path: bytes, rest: bytes) -> None:
        digits = len(rest) - len(rest.lstrip(b"0123456789"))
        is_match, line = rest[digits : digits + 1] == b":", rest[digits + 1 :]
        rows.add_line(path, int(rest[:digits] or 0), line, 0 if is_match else None)
        if is_match and len(line) > LINE_CHARS:  # grep does not say where in it
            rows.cut[path] = None

    return _Named(take)


def _counts(rows: Rows) -> _Named:
    def take(path: bytes, rest: bytes) -> None:
        count = int(rest) if rest.isdigit() else 0
        if count:
            rows.add(path, count)

    return _Named(take)


def offsets(take: Callable[[int, int], Any]) -> _Named:
    """Read what ``-o -b -n`` prints, in both programs: give the line, and where in the file the match begins."""

    def taken(_path: bytes, rest: bytes) -> None:
        line, offset = rest.split(b":", 2)[:2]
        if line.isdigit() and offset.isdigit():
            take(int(line), int(offset))

    return _Named(taken)


READERS: dict[tuple[str, str], Callable[[Rows], Any]] = {
    ("rg", "content"): _ripgrep_content,
    ("rg", "files_with_matches"): _names,
    ("rg", "count"): _counts,
    ("grep", "content"): _grep_content,
    ("grep", "files_with_matches"): _names,
    ("grep", "count"): _counts,
}
