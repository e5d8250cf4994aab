"""Read files for programs: lines without numbers, or whole contents.

An entry module; the host also uses `window`. ``files`` documents the form of requests and answers.

======  ==============================================  ===================================================
op      request (default)                               answer, in addition to ``ok: true``
======  ==============================================  ===================================================
view    offset, limit, limit_bytes, binary (true: treat path, bytes, sha256; for text: body, first, last,
        the file as binary), binary_bytes (largest      lines, cut, more; for a binary file: content
        binary file), max_bytes                         (base64)
fetch   inline_bytes, max_bytes                         path, bytes; content (base64) up to
                                                        ``inline_bytes``, otherwise null
======  ==============================================  ===================================================
"""

from __future__ import annotations

import binascii
import os

from langchain_daytona_ws._guest import text
from langchain_daytona_ws._guest.operations import run_all
from langchain_daytona_ws._guest.store import Content, load
from langchain_daytona_ws._guest.walk import Location, RefusedError, locate, need_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Request = dict[str, Any]
    Answer = dict[str, Any]


def main(request: Request) -> Answer:
    return run_all(_OPS, request)


def view(request: Request) -> Answer:
    with locate(request["root"], request["path"]) as location:
        largest = request["binary_bytes"] if request["binary"] else request["max_bytes"]
        content = _loaded(location, largest, largest)
        path = location.path
    data = content.data or b""
    if not request["binary"] and not text.binary_kind(data):
        found = window(data, request["offset"], request["limit"], request["limit_bytes"])
        shown: Answer = {name: getattr(found, name) for name in Window.__slots__}
    elif len(data) <= request["binary_bytes"]:
        shown = {"content": base64(data)}
    else:
        raise RefusedError("too_large", bytes=len(data), max_bytes=request["binary_bytes"])
    return {**shown, "path": path, **_facts(content)}


def fetch(request: Request) -> Answer:
    inline_bytes, max_bytes = request["inline_bytes"], request["max_bytes"]
    with locate(request["root"], request["path"]) as location:
        size = need_file(location.status()).st_size
        if inline_bytes < size <= max_bytes:
            os.close(location.open(os.O_RDONLY))  # an unreadable file is refused here
            return {"content": None, "path": location.path, "bytes": size}
        content = _loaded(location, inline_bytes, max_bytes)
        inline = None if content.data is None else base64(content.data)
        return {"content": inline, "path": location.path, "bytes": content.size}


def base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _loaded(location: Location, kept_bytes: int, max_bytes: int) -> Content:
    """Load a file of at most ``max_bytes`` bytes, or refuse it. If it has more than ``kept_bytes``, only hash it."""
    size = need_file(location.status()).st_size
    if size <= max_bytes:
        content = load(location, kept_bytes)
        if content.size <= max_bytes:
            return content
        size = content.size
    raise RefusedError("too_large", bytes=size, max_bytes=max_bytes)


def _facts(content: Content) -> Answer:
    return {"bytes": content.size, "sha256": content.sha256}


_OPS: dict[str, Callable[[Request], Answer]] = {"view": view, "fetch": fetch}


class Window:
    r"""Some lines of a file as text.

    Carriage returns at line ends and the byte order mark are removed. NUL, ESC and bytes that are not UTF-8 are written
    as ``\xNN``.
    """

    __slots__ = ("body", "cut", "first", "last", "lines", "more")

    def __init__(self, lines: int) -> None:
        self.body = ""
        self.first = self.last = 0  # numbers of the first and last line in ``body``, from 1; 0 if none
        self.lines = lines  # number of lines of the whole file
        self.cut = False  # True: ``body`` is the beginning of one line that is too long
        self.more = False  # True: a part of the requested lines did not fit


def window(data: bytes, offset: int, limit: int, limit_bytes: int) -> Window:
    """Return up to ``limit`` lines, in at most ``limit_bytes`` bytes of text, starting at line ``offset`` (from 1).

    If the first of these lines is too long, its beginning is returned. If ``offset`` is past the end of the file, no
    line is returned.
    """
    result = Window(text.count_lines(data))
    start = text.start_of_line(data, offset)
    rows: list[str] = []
    while start < len(data) and len(rows) < limit:
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        # Later bytes cannot fit, even if a byte order mark is removed. A character that this cuts is not shown.
        piece = data[start : min(end, start + limit_bytes + 8)]
        row = text.as_shown(piece, first=offset + len(rows) == 1)[0]
        size = len(row.encode("utf-8")) + (1 if rows else 0)
        if size > limit_bytes or len(piece) < end - start:
            result.more = True
            if rows:
                break
            row = row.encode("utf-8")[:limit_bytes].decode("utf-8", "ignore")
            result.cut = True
        limit_bytes -= size
        rows.append(row)
        start = end + 1
        if result.cut:
            break
    if rows:
        result.body = "\n".join(rows)
        result.first, result.last = offset, offset + len(rows) - 1
    return result
