"""Read what ripgrep and grep print, piece by piece, into bounded rows."""

from __future__ import annotations

import os

from langchain_daytona_ws._guest.match import Glob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

LINE_CHARS = 500  # of a matching line are shown
RECORD_BYTES = 1 << 20  # a longer one (one long line) is left out


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

    def ripgrep_options(self) -> list[str]:
        """Let ripgrep leave out files early, where its reading of the pattern is surely the same as ours."""
        odd = set(self._pattern) & set("[]{}\\!") or any(
            "**" in part and part != "**" for part in self._pattern.split("/")
        )
        # A slash in front ties it to the directory searched, as the matching here does anyway.
        parts = [part for part in self._pattern.split("/") if part not in ("", ".")]
        return [] if self.negated or odd else ["-g", "/" + "/".join(parts)]


class Rows:
    """The rows found so far; ``full`` once a limit has left something out."""

    def __init__(self, base: str, limit: int, limit_bytes: int, glob: Filter | None) -> None:
        self.items: list[list[object]] = []
        self.full = False
        self.lost = False  # a match on a line too long to be read
        self._base = base
        self._limit = limit
        self._left = limit_bytes
        self._glob = glob

    def add(self, path: bytes, *rest: object) -> None:
        name = os.fsdecode(path[2:] if path.startswith(b"./") else path)
        if self._glob is not None and not self._glob.matches(name):
            return
        shown = [_cut(part) if isinstance(part, str) else part for part in rest]
        self._left -= len(path) + sum(
            len(part.encode("utf-8")) if isinstance(part, str) else 8 for part in shown
        )
        if len(self.items) >= self._limit or (self._left < 0 and self.items):
            self.full = True
            return
        self.items.append([self._base + name, *shown])

    def drop(self, path: bytes) -> None:
        """Take back the rows of a file that turned out to be binary."""
        name = self._base + os.fsdecode(path[2:] if path.startswith(b"./") else path)
        self.items = [row for row in self.items if row[0] != name]

    def sorted(self) -> list[list[object]]:
        return sorted(self.items, key=lambda row: (str(row[0]), row[1] if len(row) > 2 else 0))


class _Records:
    """Cut a stream into records; one over the limit is passed over."""

    def __init__(self, rows: Rows, take: Callable[[bytes], None], end: bytes) -> None:
        self._rows = rows
        self._take = take
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
            self._skipping = self._rows.lost = True
            self._rest = b""


def _ripgrep_content(rows: Rows) -> _Records:
    import json

    def take(record: bytes) -> None:
        event = json.loads(record)
        data: dict[str, Any] = event["data"]
        if event["type"] in ("match", "context"):
            line = _bytes(data["lines"]).rstrip(b"\r\n")
            text = line.decode("utf-8", "backslashreplace")
            rows.add(_bytes(data["path"]), data["line_number"], event["type"] == "match", text)
        elif event["type"] == "end" and data.get("binary_offset") is not None:
            rows.drop(_bytes(data["path"]))

    return _Records(rows, take, b"\n")


def _bytes(field: dict[str, str]) -> bytes:
    if "text" in field:
        return field["text"].encode("utf-8")
    import base64

    return base64.b64decode(field["bytes"])


def _names(rows: Rows) -> _Records:
    return _Records(rows, rows.add, b"\0")


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
        text = rest[digits + 1 :].rstrip(b"\r").decode("utf-8", "backslashreplace")
        rows.add(path, int(rest[:digits] or 0), rest[digits : digits + 1] == b":", text)

    return _Named(take)


def _counts(rows: Rows) -> _Named:
    def take(path: bytes, rest: bytes) -> None:
        count = int(rest) if rest.isdigit() else 0
        if count:
            rows.add(path, count)

    return _Named(take)


def _cut(text: str) -> str:
    text = text.replace("\0", "\\x00")
    return text if len(text) <= LINE_CHARS else text[:LINE_CHARS] + "... [line cut]"


READERS: dict[tuple[str, str], Callable[[Rows], Any]] = {
    ("rg", "content"): _ripgrep_content,
    ("rg", "files_with_matches"): _names,
    ("rg", "count"): _counts,
    ("grep", "content"): _grep_content,
    ("grep", "files_with_matches"): _names,
    ("grep", "count"): _counts,
}
