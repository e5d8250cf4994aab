"""Lines of a file without numbers, for those who number them themselves: pure functions over bytes."""

from __future__ import annotations

from langchain_daytona_ws._guest import text


class Window:
    r"""Some lines as text: without carriage returns and a byte order mark; what is no text stands there as ``\xNN``."""

    __slots__ = ("body", "cut", "first", "last", "lines", "more")

    def __init__(self, lines: int) -> None:
        self.body = ""
        self.first = self.last = 0  # 1-based, inclusive; 0 when nothing is shown
        self.lines = lines
        self.cut = False  # the one line shown is too long to be shown whole
        self.more = False  # there was no room for all lines asked for


def window(data: bytes, offset: int, limit: int, limit_bytes: int) -> Window:
    """Give up to ``limit`` lines from the 1-based line ``offset``, in at most ``limit_bytes`` bytes of text.

    At least one line is shown, cut down if it must be. ``offset`` past the end gives none.
    """
    result = Window(text.count_lines(data))
    start = text.start_of_line(data, offset)
    rows: list[str] = []
    while start < len(data) and len(rows) < limit:
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        # What follows has no room, even if a byte order mark makes some: and a character cut here is not shown.
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
