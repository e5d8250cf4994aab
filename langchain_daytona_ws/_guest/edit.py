"""Byte-exact edits that know line ends: pure functions over bytes, the same on host and in sandbox."""

from __future__ import annotations

from langchain_daytona_ws._guest import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Replacement = Callable[[int, int], bytes]

SHOWN_SPOTS = 20  # line numbers named at most
MAX_SPOTS = 100_000  # places edited at once; keeps a one-letter `old` from filling the memory


class EditError(Exception):
    """An edit that can't be made: ``code`` and the facts to explain it with."""

    def __init__(self, code: str, **facts: object) -> None:
        super().__init__(code)
        self.code = code
        self.facts = facts


class Edit:
    """The edited content, and where in it the new text stands (``spots``: byte offsets from, to)."""

    __slots__ = ("data", "lines", "spots")

    def __init__(self, data: bytes, spots: list[tuple[int, int]]) -> None:
        self.data = data
        self.spots = spots
        self.lines = _line_numbers(data, [start for start, _ in spots])


def apply_edit(data: bytes, old: str, new: str, replace_all: bool = False, max_bytes: int = 1 << 30) -> Edit:
    r"""Replace ``old`` by ``new``, leaving every other byte as it is.

    A line end in ``old`` matches ``\n`` and ``\r\n`` alike, and the new text takes the line ends that stand
    at that place, so that text which was read without its ``\r`` can be edited. A result over ``max_bytes``
    is refused.

    Raises:
        EditError: ``empty``, ``identical``, ``not_found``, ``not_unique``, ``too_many`` or ``too_large``.

    """
    if not old:
        raise EditError("empty")
    if old == new:
        raise EditError("identical")
    needle, insert = old.encode("utf-8"), new.encode("utf-8")
    if _unix(needle) == _unix(insert):  # it is about the line ends themselves: nothing may be guessed
        spots, replacement = _find_all(data, needle), _verbatim(insert)
    else:
        spots, replacement = _find_lines(data, _unix(needle)), _in_style(data, _unix(needle), _unix(insert))
    if not spots:
        raise EditError("not_found", **_near_miss(data, old))
    if len(spots) > 1 and not replace_all:
        at = _line_numbers(data, [start for start, _ in spots[:SHOWN_SPOTS]])
        raise EditError("not_unique", count=len(spots), at=at)
    if len(spots) > MAX_SPOTS:
        raise EditError("too_many", count=MAX_SPOTS)
    size = len(data) + len(spots) * len(insert) - sum(end - start for start, end in spots)
    if size > max_bytes:
        raise EditError("too_large", bytes=size, max_bytes=max_bytes)
    return _spliced(data, spots, replacement)


def snippet(edit: Edit, context: int = 3, limit_bytes: int = 4096) -> str:
    """Show the first places of an edit as numbered lines, ``context`` lines around each."""
    parts: list[str] = []
    shown_to = 0
    for number, (start, end) in list(zip(edit.lines, edit.spots))[:3]:
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


def _unix(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n")


def _find_all(data: bytes, needle: bytes) -> list[tuple[int, int]]:
    spots: list[tuple[int, int]] = []
    at = data.find(needle)
    while at >= 0 and len(spots) <= MAX_SPOTS:
        spots.append((at, at + len(needle)))
        at = data.find(needle, at + len(needle))
    return spots


def _find_lines(data: bytes, needle: bytes) -> list[tuple[int, int]]:
    r"""Find ``needle``, where each ``\n`` of it stands for any line end, as offsets into ``data``."""
    if b"\r\n" not in data:
        return _find_all(data, needle)
    # Search with all line ends shortened, then add the carriage returns left out up to each offset.
    spots: list[tuple[int, int]] = []
    seen = seen_unix = 0
    for start, end in _find_all(_unix(data), needle):
        begin = _advance(data, seen, start - seen_unix)
        seen, seen_unix = _advance(data, begin, end - start), end
        spots.append((begin, seen))
    return spots


def _advance(data: bytes, start: int, steps: int) -> int:
    r"""Go ``steps`` bytes on from ``start``, where a ``\r\n`` is one step."""
    at = start
    while steps:
        piece = data[at : at + steps]
        pairs = piece.count(b"\r\n")
        # A pair that the end of the piece splits: step over both halves.
        if piece.endswith(b"\r") and data[at + len(piece) : at + len(piece) + 1] == b"\n":
            at, steps = at + len(piece) + 1, pairs
        else:
            at, steps = at + len(piece), pairs
    return at


def _verbatim(insert: bytes) -> Replacement:
    return lambda _start, _end: insert


def _in_style(data: bytes, old: bytes, new: bytes) -> Replacement:
    r"""Give the new text with the line ends of the place where it goes.

    Lines that old and new text share at their beginning and end keep their own line end, so that a file of
    mixed line ends changes only where the text does.
    """
    old_lines, new_lines = old.split(b"\n"), new.split(b"\n")
    most = min(len(old_lines), len(new_lines)) - 1
    head = _shared(old_lines, new_lines, most)
    tail = _shared(old_lines[::-1], new_lines[::-1], most - head)

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


def _shared(one: list[bytes], other: list[bytes], most: int) -> int:
    for index in range(most):
        if one[index] != other[index]:
            return index
    return most


def _line_ends(region: bytes) -> list[bytes]:
    return [b"\r\n" if line.endswith(b"\r") else b"\n" for line in region.split(b"\n")[:-1]]


def _line_end_near(data: bytes, start: int, end: int) -> bytes:
    """Give the line end of this line, else of the one before it."""
    at = data.find(b"\n", end)
    if at < 0:
        at = data.rfind(b"\n", 0, start)
    return b"\r\n" if at > 0 and data[at - 1 : at] == b"\r" else b"\n"


def _spliced(data: bytes, spots: list[tuple[int, int]], replacement: Replacement) -> Edit:
    parts: list[bytes] = []
    placed: list[tuple[int, int]] = []
    seen = size = 0
    for start, end in spots:
        put = replacement(start, end)
        size += start - seen
        placed.append((size, size + len(put)))
        size += len(put)
        parts += (data[seen:start], put)
        seen = end
    parts.append(data[seen:])
    return Edit(b"".join(parts), placed)


def _near_miss(data: bytes, old: str) -> dict[str, object]:
    """Guess why ``old`` was not found: a hint (``line_numbers``, ``whitespace``, ``""``), the line meant."""
    lines = [line for line in old.split("\n") if line]
    if lines and all("\t" in line and line.split("\t")[0].strip().isdigit() for line in lines):
        return {"hint": "line_numbers", "line": 0}
    needle = b"".join(old.encode("utf-8").split())
    at = b"".join(data.split()).find(needle) if needle else -1
    if at < 0:
        return {"hint": "", "line": 0}
    for number, line in enumerate(data.split(b"\n"), 1):
        at -= len(b"".join(line.split()))
        if at < 0:
            return {"hint": "whitespace", "line": number}
    return {"hint": "", "line": 0}


def _line_numbers(data: bytes, offsets: list[int]) -> list[int]:
    """Give the 1-based line of each of the ascending offsets."""
    numbers: list[int] = []
    line, seen = 1, 0
    for offset in offsets:
        line += data.count(b"\n", seen, offset)
        seen = offset
        numbers.append(line)
    return numbers
