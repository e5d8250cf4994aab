"""Lines of a file without line numbers. Pure; used by host and guest."""

from __future__ import annotations

from langchain_daytona_ws._guest import text


class Window:
    r"""Lines as text, without carriage returns and byte order mark; bytes that are not text are shown as ``\xNN``."""

    __slots__ = ("body", "cut", "first", "last", "lines", "more")

    def __init__(self, lines: int) -> None:
        self.body = ""
        self.first = self.last = 0  # 1-based, inclusive; 0 when nothing is shown
        self.lines = lines
        self.cut = False  # the only line shown was cut
        self.more = False  # not all requested lines fit


def window(data: bytes, offset: int, limit: int, limit_bytes: int) -> Window:
    """Return up to ``limit`` lines from the 1-based line ``offset``, in at most ``limit_bytes`` bytes of text.

    At least one line is shown, cut if necessary. If ``offset`` is past the end, there are no lines.
    """
    result = Window(text.count_lines(data))
    start = text.start_of_line(data, offset)
    rows: list[str] = []
    while start < len(data) and len(rows) < limit:
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        # Bytes beyond this do not fit, even after a byte order mark is removed; a character cut here is not shown.
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
