"""Replace texts in a file's content, and keep all other bytes and the line ends. Pure; used by host and guest."""

from __future__ import annotations

from langchain_daytona_ws._guest import alike, similar, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Replacement = Callable[[int, int], bytes]  # start and end of a replaced text → the new text
    Difference = tuple[int, int, str, str]  # line, column, text in the file, text in ``old``

SHOWN_RANGES = 20  # maximum number of line numbers in an answer
SHOWN_DIFFERENCES = 3
MAX_RANGES = 100_000  # maximum number of replacements: bounds the memory if ``old`` is one letter
NEAR_BYTES = 65_536  # maximum distance from a match to the line end whose style a new text gets


class EditError(Exception):
    """The edit is impossible. The host writes the message from ``code``, ``facts`` and ``differences``."""

    def __init__(self, code: str, *, differences: Sequence[Difference] = (), **facts: object) -> None:
        super().__init__(code)
        self.code = code
        self.facts = facts
        self.differences = differences

    @property
    def fields(self) -> dict[str, object]:
        return {**self.facts, "differences": self.differences} if self.differences else self.facts


class Edit:
    """The edited content. ``ranges`` contains the start and end of each new text, in bytes of the new content."""

    __slots__ = ("data", "differences", "lines", "mixed", "ranges", "verbatim")

    def __init__(self, data: bytes, ranges: list[tuple[int, int]]) -> None:
        self.data = data
        self.ranges = ranges
        self.lines = _line_numbers(data, [start for start, _ in ranges])
        self.differences: list[Difference] = []  # between the replaced text and ``old``
        self.mixed = False  # True: UTF-8 text was written into a file that has another encoding
        self.verbatim = False  # True: an escape such as ``\xe9`` was written as four characters

    @property
    def remarks(self) -> dict[str, object]:
        found = {"differences": self.differences, "mixed": self.mixed, "verbatim": self.verbatim}
        return {name: value for name, value in found.items() if value}


def apply_edit(
    data: bytes,
    old: str,
    new: str,
    replace_all: bool = False,
    max_bytes: int = 1 << 30,
    *,
    exact: bool = False,
) -> Edit:
    r"""Replace ``old`` by ``new``, and keep every other byte.

    A line end in ``old`` matches ``\n`` and ``\r\n``, and the new text gets the line ends of the replaced text. So a
    text that was read without ``\r`` can be edited. If ``old`` and ``new`` differ only in line ends, line ends match
    exactly. An escape in ``old``, such as ``\xe9``, also matches the byte that is shown as this escape.

    If ``old`` does not occur, replace a similar text: a text that differs from ``old`` only in look-alike characters,
    invisible characters or Unicode forms. Raise ``not_found`` instead if:

    - there is no similar text, or more than one;
    - ``exact`` is true;
    - ``old`` has no letter or digit, or is too long to be compared;
    - the edit changes only look-alike or invisible characters, or line ends.

    Raises:
        EditError: The edit is impossible. Its code is ``empty``, ``identical``, ``not_found``, ``not_unique``,
            ``too_many`` or ``too_large`` (the result would exceed ``max_bytes``; its size is estimated before line
            ends are adapted).
    """
    if not old:
        raise EditError("empty")
    if old == new:
        raise EditError("identical")
    needle, insert = old.encode("utf-8"), new.encode("utf-8")
    differences: list[Difference] = []
    lines, new_lines = _unix(needle), _unix(insert)
    if lines == new_lines:  # only line ends change: match them exactly
        ranges, replacement, exact = _find_all(data, needle), _verbatim(insert), True
    elif "\\x" in old and similar.shows_bytes(old) and _has_bytes(data):
        ranges, replacement = _find_shown(data, old, new)
    else:
        ranges, replacement = _find_lines(data, lines), _in_style(data, lines, new_lines)
    if not ranges:
        ranges, replacement, differences = _find_similar(data, old, new, exact)
    if len(ranges) > 1 and not replace_all:
        at = _line_numbers(data, [start for start, _ in ranges[:SHOWN_RANGES]])
        raise EditError("not_unique", count=len(ranges), at=at)
    if len(ranges) > MAX_RANGES:
        raise EditError("too_many", count=MAX_RANGES)
    size = len(data) + len(ranges) * len(insert) - sum(end - start for start, end in ranges)
    if size > max_bytes:
        raise EditError("too_large", bytes=size, max_bytes=max_bytes)
    result = _splice(data, ranges, replacement)
    result.differences = differences
    if not (old + new).isascii() or "\\x" in new:
        _set_remarks(result, data, old, new)
    return result


def _has_bytes(data: bytes) -> bool:
    r"""Return whether bytes of the content are shown to the model as escapes, such as ``\xe9``."""
    return b"\0" in data or b"\x1b" in data or not text.is_utf8(data)


def _find_shown(data: bytes, old: str, new: str) -> tuple[list[tuple[int, int]], Replacement]:
    """Find ``old``, in which escapes stand for bytes of the file."""
    old, new = _unix_text(old), _unix_text(new)
    content, wanted = similar.text_of(data), similar.units(old)
    return _byte_ranges(
        data, content, similar.find(content, wanted, False, MAX_RANGES), wanted, new, loose=False
    )


def _find_similar(
    data: bytes, old: str, new: str, exact: bool
) -> tuple[list[tuple[int, int]], Replacement, list[Difference]]:
    """Find the only text that looks like ``old``, if ``old`` itself does not occur."""
    old, new = _unix_text(old), _unix_text(new)
    content, wanted = similar.text_of(data), similar.units(old)
    matches = similar.find(content, wanted, True, SHOWN_RANGES) if len(old) <= similar.MAX_LOOSE_CHARS else []
    differences = _differences(content, matches[0], wanted) if matches else []
    if not differences:
        raise EditError("not_found", **_near_miss(data, old))
    # Do not guess if the edit itself changes only look-alike characters, or if ``old`` has no letter or digit.
    clear = not exact and len(matches) == 1 and any(char.isalnum() for char in old)
    if clear and alike.plain(old) != alike.plain(new):
        try:
            return (*_byte_ranges(data, content, matches, wanted, new, loose=True), differences)
        except similar.TooLongError:
            pass
    raise EditError(
        "not_found", hint="alike", line=differences[0][0], count=len(matches), differences=differences
    )


def _byte_ranges(
    data: bytes, content: str, found: list[similar.Match], wanted: list[str], new: str, *, loose: bool
) -> tuple[list[tuple[int, int]], Replacement]:
    """Convert matches in the text to byte ranges; return these, and a function that returns the new text of each."""
    ranges: list[tuple[int, int]] = []
    new_text: dict[int, bytes] = {}
    seen = at = 0
    for match in found:
        start = at + len(similar.bytes_of(content[seen : match.start]))
        end = start + len(similar.bytes_of(content[match.start : match.end]))
        newline = _line_end_near(data, start, end).decode("ascii")
        new_text[start] = similar.bytes_of(similar.replaced(wanted, match.pieces, new, newline, loose))
        ranges.append((start, end))
        seen, at = match.end, end
    return ranges, lambda start, _end: new_text[start]


def _differences(content: str, match: similar.Match, wanted: list[str]) -> list[Difference]:
    found: list[Difference] = []
    at = match.start
    for unit, piece in zip(wanted, match.pieces):
        if similar.is_changed(unit, piece) and len(found) < SHOWN_DIFFERENCES:
            actual = piece[: len(piece) - len(unit)] if piece.endswith(unit) else piece
            expected = "" if piece.endswith(unit) else unit
            found.append((*_position(content, at), actual, expected))
        at += len(piece)
    return found


def _position(content: str, at: int) -> tuple[int, int]:
    """Return the line and column of an offset, both from 1; a byte order mark is not counted."""
    start = content.rfind("\n", 0, at) + 1
    column = at - start + 1 - content.startswith("\ufeff", start, at)
    return content.count("\n", 0, at) + 1, column


def _set_remarks(result: Edit, data: bytes, old: str, new: str) -> None:
    """If the file is not UTF-8, set ``mixed`` and ``verbatim`` of the result."""
    if text.is_utf8(data):
        return
    content = similar.text_of(data)
    foreign = sum("\udc80" <= char <= "\udcff" for char in content)
    native = sum(char > "\x7f" for char in content) - foreign
    result.mixed = any(not char.isascii() and char not in old for char in new) and native < foreign
    result.verbatim = similar.shows_bytes(new) and not similar.shows_bytes(old)


def snippet(edit: Edit, context: int = 3, limit_bytes: int = 4096) -> str:
    """Return the first three new texts as numbered lines, with ``context`` lines before and after each."""
    parts: list[str] = []
    shown_to = 0
    for number, (start, end) in list(zip(edit.lines, edit.ranges))[:3]:
        first = max(number - context, shown_to + 1, 1)
        last = number + edit.data.count(b"\n", start, end) + context
        if last < first:
            continue
        part = text.page(edit.data, first, last - first + 1, limit_bytes + text.FOOTER_BYTES)
        if not part.body:
            continue
        parts.append(("   ...\n" if 0 < shown_to < first - 1 else "") + part.body)
        shown_to = part.last
        limit_bytes -= len(part.body.encode("utf-8"))
        if limit_bytes < 256 or part.last < min(last, part.lines):
            parts.append("   ...")
            break
    return "\n".join(parts)


def style_to_keep(old: bytes, new: bytes) -> list[str]:
    r"""Return the properties of ``old`` that ``new`` should get.

    ``bom``: ``new`` lacks the byte order mark. ``crlf``: lines end with ``\r\n`` in ``old``, with ``\n`` in ``new``.
    """
    if not new or text.binary_kind(old):
        return []
    bom = old.startswith(text.BOM) and not new.startswith(text.BOM)
    crlf = text.newline_style(old) == "crlf" and b"\n" in new and b"\r" not in new
    return ["bom"] * bom + ["crlf"] * crlf


def in_style(new: bytes, style: Sequence[str]) -> bytes:
    """Return ``new`` with the properties that `style_to_keep` returned."""
    if "crlf" in style:
        new = new.replace(b"\n", b"\r\n")
    return text.BOM + new if "bom" in style else new


def style_gone(old: bytes, new: bytes) -> list[str]:
    """Return the properties of ``old`` that ``new`` lacks: ``bom``, ``crlf``, ``bytes`` (bytes that are not UTF-8)."""
    if not new or text.binary_kind(old):
        return []
    bom = old.startswith(text.BOM) and not new.startswith(text.BOM)
    crlf = b"\r\n" in old and b"\n" in new and b"\r\n" not in new
    foreign = not text.is_utf8(old) and text.is_utf8(new)
    return ["bom"] * bom + ["crlf"] * crlf + ["bytes"] * foreign


def _unix(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n")


def _unix_text(content: str) -> str:
    return content.replace("\r\n", "\n")


def _find_all(data: bytes, needle: bytes) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    at = data.find(needle)
    while at >= 0 and len(ranges) <= MAX_RANGES:
        ranges.append((at, at + len(needle)))
        at = data.find(needle, at + len(needle))
    return ranges


def _find_lines(data: bytes, needle: bytes) -> list[tuple[int, int]]:
    r"""Return the ranges of ``data`` that match ``needle``; ``\n`` in ``needle`` matches ``\n`` and ``\r\n``."""
    if b"\r\n" not in data:
        return _find_all(data, needle)
    # Search with ``\n`` line ends, then add the removed carriage returns to each offset.
    ranges: list[tuple[int, int]] = []
    seen = seen_unix = 0
    for start, end in _find_all(_unix(data), needle):
        begin = _advance(data, seen, start - seen_unix)
        seen, seen_unix = _advance(data, begin, end - start), end
        ranges.append((begin, seen))
    return ranges


def _advance(data: bytes, start: int, steps: int) -> int:
    r"""Return the offset ``steps`` bytes after ``start``; ``\r\n`` counts as one."""
    at = start
    while steps:
        piece = data[at : at + steps]
        pairs = piece.count(b"\r\n")
        # If the piece ends between a carriage return and its newline, skip both.
        if piece.endswith(b"\r") and data[at + len(piece) : at + len(piece) + 1] == b"\n":
            at, steps = at + len(piece) + 1, pairs
        else:
            at, steps = at + len(piece), pairs
    return at


def _verbatim(insert: bytes) -> Replacement:
    return lambda _start, _end: insert


def _in_style(data: bytes, old: bytes, new: bytes) -> Replacement:
    """Return a function that returns the new text with the line ends of the text that it replaces.

    If the file has mixed line ends, the unchanged lines at the start and the end of the replaced text keep their own.
    """
    old_lines, new_lines = old.split(b"\n"), new.split(b"\n")
    limit = min(len(old_lines), len(new_lines)) - 1
    head = _count_equal(old_lines, new_lines, limit)
    tail = _count_equal(old_lines[::-1], new_lines[::-1], limit - head)

    def styled(start: int, end: int) -> bytes:
        if len(new_lines) == 1:
            return new
        ends = _line_ends(data[start:end]) or [_line_end_near(data, start, end)]
        middle = ends[min(head, len(ends) - 1)]
        gaps = len(new_lines) - 1
        parts = [new_lines[0]]
        for gap in range(gaps):
            if gap < head:
                parts.append(ends[gap])
            else:
                parts.append(ends[gap - gaps] if gaps - gap <= tail else middle)
            parts.append(new_lines[gap + 1])
        return b"".join(parts)

    return styled


def _count_equal(a: list[bytes], b: list[bytes], limit: int) -> int:
    for index in range(limit):
        if a[index] != b[index]:
            return index
    return limit


def _line_ends(region: bytes) -> list[bytes]:
    return [b"\r\n" if line.endswith(b"\r") else b"\n" for line in region.split(b"\n")[:-1]]


def _line_end_near(data: bytes, start: int, end: int) -> bytes:
    """Return the first line end after ``end``; if there is none, the last before ``start``, or else a line feed.

    Only ``NEAR_BYTES`` are searched in each direction: there may be ``MAX_RANGES`` calls.
    """
    at = data.find(b"\n", end, end + NEAR_BYTES)
    if at < 0:
        at = data.rfind(b"\n", max(start - NEAR_BYTES, 0), start)
    return b"\r\n" if at > 0 and data[at - 1 : at] == b"\r" else b"\n"


def _splice(data: bytes, ranges: list[tuple[int, int]], replacement: Replacement) -> Edit:
    parts: list[bytes] = []
    new_ranges: list[tuple[int, int]] = []
    seen = size = 0
    for start, end in ranges:
        new_text = replacement(start, end)
        size += start - seen
        new_ranges.append((size, size + len(new_text)))
        size += len(new_text)
        parts += (data[seen:start], new_text)
        seen = end
    parts.append(data[seen:])
    return Edit(b"".join(parts), new_ranges)


def _near_miss(data: bytes, old: str) -> dict[str, Any]:
    """Return the probable reason why ``old`` was not found, as fields of an answer.

    ``hint`` is one of these:

    - ``line_numbers``: each line of ``old`` begins with a line number;
    - ``whitespace``: the text at ``line`` differs from ``old`` only in whitespace, and perhaps in look-alikes;
    - ``""``: the reason is unknown.
    """
    lines = [line for line in old.split("\n") if line]
    if lines and all("\t" in line and line.split("\t")[0].strip().isdigit() for line in lines):
        return {"hint": "line_numbers", "line": 0}
    content = similar.text_of(data)
    wanted = "".join(alike.plain(old).split())
    at = "".join(alike.plain(content).split()).find(wanted) if wanted else -1
    if at < 0:
        return {"hint": "", "line": 0}
    start = 0
    for number, line in enumerate(content.split("\n"), 1):
        squeezed = "".join(alike.plain(line).split())
        if at < len(squeezed):
            difference = _first_difference(content, start, at, old)
            return {"hint": "whitespace", "line": number, "differences": difference}
        at -= len(squeezed)
        start += len(line) + 1
    return {"hint": "", "line": 0}


def _first_difference(content: str, start: int, skip: int, old: str) -> list[Difference]:
    """Return the first difference between ``old`` and a text of the file that equals ``old`` except for whitespace.

    The text begins in the line at the offset ``start``, after ``skip`` characters that are not whitespace.
    """
    import re  # takes 5 ms

    begin = len(old) - len(old.lstrip())
    visible = re.compile("[^\\s" + alike.SPACES + alike.INVISIBLE + "]").finditer(content, start)
    first = next((match for number, match in enumerate(visible) if number == skip), None)
    at = first.start() if first else len(content)
    ahead = 0
    while begin + ahead < len(old) and content[at + ahead : at + ahead + 1] == old[begin + ahead]:
        ahead += 1
    if begin + ahead < len(old):
        return [(*_position(content, at + ahead), content[at + ahead : at + ahead + 1], old[begin + ahead])]
    back = 1
    while back <= begin and content[at - back : at - back + 1] == old[begin - back]:
        back += 1
    if back > begin or at < back:
        return []
    return [(*_position(content, at - back), content[at - back], old[begin - back])]


def _line_numbers(data: bytes, offsets: list[int]) -> list[int]:
    """Return the line number of each offset, from 1. The offsets are in ascending order."""
    numbers: list[int] = []
    line, seen = 1, 0
    for offset in offsets:
        line += data.count(b"\n", seen, offset)
        seen = offset
        numbers.append(line)
    return numbers
