"""Pages of numbered lines. Pure; used by host and guest.

Lines end at a line feed only, as `grep -n` and `sed` count them.
"""

from __future__ import annotations

LINE_CHARS = 2000  # maximum that is shown of a line
PAGE_LINES = 2000
FOOTER_BYTES = 256  # reserved for the footer in the byte limit of a page
SNIFF_BYTES = 8192

BOM = b"\xef\xbb\xbf"
MARKED_UTF16 = "UTF-16 text"  # text that begins with a byte order mark
UNMARKED_UTF16 = ("UTF-16LE text", "UTF-16BE text")
UTF16_KINDS = (MARKED_UTF16, *UNMARKED_UTF16)
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b")) + b"\x7f"


class Page:
    """Numbered lines of a file."""

    __slots__ = ("body", "bom", "cut", "first", "last", "lines", "lossy", "newline")

    def __init__(self, data: bytes, newlines: int | None) -> None:
        self.body = ""
        self.first = self.last = 0  # numbers of the shown lines, from 1; 0 if no line is shown
        self.lines = count_lines(data, newlines)  # number of lines of the file
        self.cut = 0  # number of lines that are shown only in part
        self.lossy = False  # some bytes are not text, and are shown as \xNN
        self.newline = newline_style(data)
        self.bom = data.startswith(BOM)


def count_lines(data: bytes, newlines: int | None = None) -> int:
    """Return the number of lines. ``newlines``: the number of line feeds; None if unknown."""
    newlines = data.count(b"\n") if newlines is None else newlines
    return newlines + (1 if data and not data.endswith(b"\n") else 0)


def newline_style(data: bytes) -> str:
    """Return the style of the line ends: ``lf``, ``crlf`` or ``mixed``; ``lf`` also if there are no line ends."""
    crlf = data.count(b"\r\n") if b"\r" in data else 0
    if not crlf:
        return "lf"
    return "crlf" if crlf == data.count(b"\n") else "mixed"


def binary_kind(data: bytes) -> str:
    """Return the kind of binary content, or ``""`` for text. Read, edit and grep all use this rule.

    Only the first ``SNIFF_BYTES`` are checked, so a file need not be read completely. Text may have one oddity: single
    NULs (a log after a crash), many control characters, or bytes that are not UTF-8 (an old encoding). Content with two
    oddities, with two NULs in a row, or with a UTF-16 byte order mark is binary.
    """
    head = data[:SNIFF_BYTES]
    if head.startswith(UTF16_BOMS):
        return MARKED_UTF16
    controls = len(head) - len(head.translate(None, _CONTROLS))
    has_many = controls > 1 and controls * 20 > len(head)
    oddities = (b"\0" in head) + (b"\0\0" in head) + has_many + (not _is_utf8(head))
    if oddities > 1:
        return _unmarked_utf16(head) or "binary"
    return ""


def _unmarked_utf16(head: bytes) -> str:
    """Return the kind of UTF-16 text without a byte order mark; ``""`` for other content.

    Such text is recognised by its ASCII characters, whose high bytes are NUL.
    """
    for kind, high, low in zip(UNMARKED_UTF16, (head[1::2], head[::2]), (head[::2], head[1::2])):
        if len(high) > 1 and high.count(0) * 10 > len(high) * 7 and 0 not in low:
            return kind
    return ""


def page(
    data: bytes,
    offset: int = 1,
    limit: int = PAGE_LINES,
    limit_bytes: int = 65536,
    newlines: int | None = None,
) -> Page:
    """Return up to ``limit`` numbered lines from line ``offset`` (from 1) on, in at most ``limit_bytes`` bytes.

    Each line is cut to LINE_CHARS characters, and the first line also to the byte limit. If ``offset`` is past the end,
    the page has no lines. ``newlines``: the number of line feeds in ``data``; None if unknown.
    """
    result = Page(data, newlines)
    budget = max(limit_bytes - FOOTER_BYTES, 64)
    start = start_of_line(data, offset)
    rows, taken = _plain_rows(data[start : start + budget], offset, limit, budget)
    number, start = offset + len(rows), start + taken
    budget -= sum(map(len, rows)) + len(rows)
    while start < len(data) and len(rows) < limit:
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        text, lossy = as_shown(data[start:end], first=number == 1)
        row, cut = _row(number, text, budget if not rows else None)
        budget -= len(row.encode("utf-8")) + 1
        if budget < 0 and rows:
            break
        rows.append(row)
        result.lossy = result.lossy or lossy
        result.cut += cut
        number += 1
        start = end + 1
    if rows:
        result.first, result.last = offset, number - 1
        result.body = "\n".join(rows)
    return result


def footer(first: int, last: int, lines: int) -> str:
    """Return a line that names the shown lines and the next offset; ``""`` if all lines are shown."""
    if last < lines:
        return f"[Showing lines {first}-{last} of {lines}. Use offset={last + 1} to continue.]"
    return f"[Showing lines {first}-{last} of {lines}.]" if first > 1 else ""


def start_of_line(data: bytes, number: int) -> int:
    start = 0
    for _ in range(number - 1):
        end = data.find(b"\n", start)
        if end < 0:
            return len(data)
        start = end + 1
    return start


def as_shown(line: bytes, first: bool) -> tuple[str, bool]:
    """Return a line as it is shown, without carriage return and byte order mark, and whether bytes were escaped."""
    if first and line.startswith(BOM):
        line = line[len(BOM) :]
    if line.endswith(b"\r"):
        line = line[:-1]
    try:
        text, lossy = line.decode("utf-8"), False
    except UnicodeDecodeError:
        text, lossy = line.decode("utf-8", "backslashreplace"), True
    plain = visible(text)
    return plain, lossy or plain != text


def visible(text: str) -> str:
    """Escape ESC, which controls terminals, and NUL, which databases (Postgres) and model APIs refuse."""
    return text.replace("\0", "\\x00").replace("\x1b", "\\x1b")


def _plain_rows(head: bytes, number: int, limit: int, budget: int) -> tuple[list[str], int]:
    """Number the first lines that fit, if all lines are plain ASCII and short; otherwise return no lines.

    The lines are decoded together: decoding each alone would take longer than reading the file from S3.

    Returns:
        The numbered lines, and their size in the file in bytes.
    """
    end = head.rfind(b"\n")
    if end < 0 or not head.isascii() or any(control in head for control in (b"\r", b"\0", b"\x1b")):
        return [], 0
    lines = head[:end].decode("ascii").split("\n", limit)[:limit]
    sizes = list(map(len, lines))
    if sizes[0] > budget - 64 or max(sizes) > LINE_CHARS:
        return [], 0
    rows = list(map("%6d\t%s".__mod__, enumerate(lines, number)))
    size = sum(map(len, rows)) + len(rows)
    while size > budget:
        size -= len(rows.pop()) + 1
    return rows, sum(sizes[: len(rows)]) + len(rows)


def _row(number: int, text: str, budget: int | None) -> tuple[str, int]:
    """Return a line with its number, and 1 if the line was cut, else 0.

    The line is cut to LINE_CHARS characters and, if ``budget`` is given, to ``budget`` bytes.
    """
    length = len(text)
    shown = text[:LINE_CHARS]
    if budget is not None and len(shown.encode("utf-8")) > budget - 64:
        shown = shown.encode("utf-8")[: max(budget - 64, 0)].decode("utf-8", "ignore")
    if len(shown) == length:
        return f"{number:>6}\t{text}", 0
    return f"{number:>6}\t{shown}... [line cut: {len(shown)} of {length} characters]", 1


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The end of the checked bytes may be within a character.
        return len(head) == SNIFF_BYTES and error.start > SNIFF_BYTES - 4 and error.end == SNIFF_BYTES
    return True


def is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
