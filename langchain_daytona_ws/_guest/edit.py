"""Byte-exact edits that know line ends: pure functions over bytes, the same on host and in sandbox."""

from __future__ import annotations

from langchain_daytona_ws._guest import alike, meant, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Replacement = Callable[[int, int], bytes]

SHOWN_SPOTS = 20  # line numbers named at most
SHOWN_DIFFERENCES = 3
MAX_SPOTS = 100_000  # places edited at once; keeps a one-letter `old` from filling the memory


class EditError(Exception):
    """An edit that can't be made: ``code`` and the facts to explain it with."""

    def __init__(self, code: str, **facts: object) -> None:
        super().__init__(code)
        self.code = code
        self.facts = facts


class Edit:
    """The edited content, and where in it the new text stands (``spots``: byte offsets from, to)."""

    __slots__ = ("data", "differences", "lines", "mixed", "spots", "verbatim")

    def __init__(self, data: bytes, spots: list[tuple[int, int]]) -> None:
        self.data = data
        self.spots = spots
        self.lines = _line_numbers(data, [start for start, _ in spots])
        # How the text that was replaced differs from the one that was asked for: line, column, there, asked for.
        self.differences: list[list[object]] = []
        self.mixed = False  # UTF-8 came into a file of another encoding
        self.verbatim = False  # a byte as it is shown was written as its four characters

    @property
    def remarks(self) -> dict[str, object]:
        """What the answer says beside the usual."""
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
    r"""Replace ``old`` by ``new``, leaving every other byte as it is.

    A line end in ``old`` matches ``\n`` and ``\r\n`` alike, and the new text takes the line ends that stand
    at that place, so that text which was read without its ``\r`` can be edited. Bytes that are no text match as
    they are shown, ``\xe9``. Where ``old`` is nowhere, the one place that differs from it only in characters that
    look alike or like nothing is edited, unless ``exact``. A result over ``max_bytes`` is refused.

    Raises:
        EditError: ``empty``, ``identical``, ``not_found``, ``not_unique``, ``too_many`` or ``too_large``.

    """
    if not old:
        raise EditError("empty")
    if old == new:
        raise EditError("identical")
    needle, insert = old.encode("utf-8"), new.encode("utf-8")
    differences: list[list[object]] = []
    if _unix(needle) == _unix(insert):  # it is about the line ends themselves: nothing may be guessed
        spots, replacement, exact = _find_all(data, needle), _verbatim(insert), True
    elif meant.shows_bytes(old) and _has_bytes(data):
        spots, replacement = _as_shown(data, old, new)
    else:
        spots, replacement = _find_lines(data, _unix(needle)), _in_style(data, _unix(needle), _unix(insert))
    if not spots:
        spots, replacement, differences = _alike(data, old, new, exact)
    if len(spots) > 1 and not replace_all:
        at = _line_numbers(data, [start for start, _ in spots[:SHOWN_SPOTS]])
        raise EditError("not_unique", count=len(spots), at=at)
    if len(spots) > MAX_SPOTS:
        raise EditError("too_many", count=MAX_SPOTS)
    size = len(data) + len(spots) * len(insert) - sum(end - start for start, end in spots)
    if size > max_bytes:
        raise EditError("too_large", bytes=size, max_bytes=max_bytes)
    made = _spliced(data, spots, replacement)
    made.differences = differences
    if not (old + new).isascii() or meant.shows_bytes(new):
        _remark(made, data, old, new)
    return made


def _has_bytes(data: bytes) -> bool:
    """Tell whether some of this is shown as bytes."""
    return b"\0" in data or b"\x1b" in data or not text.is_utf8(data)


def _as_shown(data: bytes, old: str, new: str) -> tuple[list[tuple[int, int]], Replacement]:
    """Find a text in which bytes are written as they are shown."""
    old, new = _short_ends(old), _short_ends(new)
    content, wanted = meant.text_of(data), meant.units(old)
    return _placed(data, content, meant.find(content, wanted, False, MAX_SPOTS), wanted, new, loose=False)


def _alike(
    data: bytes, old: str, new: str, exact: bool
) -> tuple[list[tuple[int, int]], Replacement, list[list[object]]]:
    """Find the one place that looks like a text which is nowhere."""
    old, new = _short_ends(old), _short_ends(new)
    content, wanted = meant.text_of(data), meant.units(old)
    spots = meant.find(content, wanted, True, SHOWN_SPOTS) if len(old) <= meant.MAX_LOOSE_CHARS else []
    differences = _differences(content, spots[0], wanted) if spots else []
    if not differences:
        raise EditError("not_found", **_near_miss(data, old))
    # What is about these characters themselves, or of nothing else, is not guessed at.
    clear = not exact and len(spots) == 1 and any(char.isalnum() for char in old)
    if clear and alike.plain(old) != alike.plain(new):
        try:
            return (*_placed(data, content, spots, wanted, new, loose=True), differences)
        except meant.TooLongError:
            pass
    raise EditError(
        "not_found", hint="alike", line=differences[0][0], count=len(spots), differences=differences
    )


def _placed(
    data: bytes, content: str, found: list[meant.Spot], wanted: list[str], new: str, *, loose: bool
) -> tuple[list[tuple[int, int]], Replacement]:
    """Turn places in the text into places in the bytes, and tell what to put there."""
    spots: list[tuple[int, int]] = []
    put: dict[int, bytes] = {}
    seen = at = 0
    for spot in found:
        start = at + len(meant.bytes_of(content[seen : spot.start]))
        end = start + len(meant.bytes_of(content[spot.start : spot.end]))
        newline = _line_end_near(data, start, end).decode("ascii")
        put[start] = meant.bytes_of(meant.replaced(wanted, spot.pieces, new, newline, loose))
        spots.append((start, end))
        seen, at = spot.end, end
    return spots, lambda start, _end: put[start]


def _differences(content: str, spot: meant.Spot, wanted: list[str]) -> list[list[object]]:
    """Say where a place differs from the text that was asked for: line, column, what is there, what was asked for."""
    found: list[list[object]] = []
    at = spot.start
    for unit, piece in zip(wanted, spot.pieces):
        if meant.is_changed(unit, piece) and len(found) < SHOWN_DIFFERENCES:
            there = piece[: len(piece) - len(unit)] if piece.endswith(unit) else piece
            asked = "" if piece.endswith(unit) else unit
            found.append([*_position(content, at), there, asked])
        at += len(piece)
    return found


def _position(content: str, at: int) -> tuple[int, int]:
    """Give line and column, from 1, as the lines are shown."""
    start = content.rfind("\n", 0, at) + 1
    column = at - start + 1 - content.startswith("\ufeff", start, at)
    return content.count("\n", 0, at) + 1, column


def _remark(made: Edit, data: bytes, old: str, new: str) -> None:
    """Note what came into a file that is not UTF-8."""
    if text.is_utf8(data):
        return
    content = meant.text_of(data)
    foreign = sum("\udc80" <= char <= "\udcff" for char in content)
    native = sum(char > "\x7f" for char in content) - foreign
    made.mixed = any(not char.isascii() and char not in old for char in new) and native < foreign
    made.verbatim = meant.shows_bytes(new) and not meant.shows_bytes(old)


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


def style_to_keep(old: bytes, new: bytes) -> list[str]:
    """Name what a text that replaces ``old`` should have of it and lacks: ``bom``, ``crlf`` (as line ends)."""
    if not new or text.binary_kind(old):
        return []
    bom = old.startswith(text.BOM) and not new.startswith(text.BOM)
    crlf = text.newline_style(old) == "crlf" and b"\n" in new and b"\r" not in new
    return ["bom"] * bom + ["crlf"] * crlf


def in_style(new: bytes, style: list[str]) -> bytes:
    """Give content what `style_to_keep` named."""
    if "crlf" in style:
        new = new.replace(b"\n", b"\r\n")
    return text.BOM + new if "bom" in style else new


def style_gone(old: bytes, new: bytes) -> list[str]:
    """Name what ``old`` has and ``new`` lacks, as `style_to_keep` does; ``bytes`` for those that are not UTF-8."""
    if not new or text.binary_kind(old):
        return []
    bom = old.startswith(text.BOM) and not new.startswith(text.BOM)
    crlf = b"\r\n" in old and b"\n" in new and b"\r\n" not in new
    foreign = not text.is_utf8(old) and text.is_utf8(new)
    return ["bom"] * bom + ["crlf"] * crlf + ["bytes"] * foreign


def _unix(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n")


def _short_ends(content: str) -> str:
    return content.replace("\r\n", "\n")


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
    content = meant.text_of(data)
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


def _first_difference(content: str, start: int, skip: int, old: str) -> list[list[object]]:
    """Find where a text parts from the content in which it stands but for whitespace.

    Args:
        content: All of it.
        start: Where the line begins in which the text does.
        skip: How many characters of that line come before it, whitespace left out.
        old: The text.
    """
    begin = len(old) - len(old.lstrip())
    at = start
    while at < len(content) and (skip or not alike.plain(content[at]).strip()):
        skip -= 1 if alike.plain(content[at]).strip() else 0
        at += 1
    ahead = 0
    while begin + ahead < len(old) and content[at + ahead : at + ahead + 1] == old[begin + ahead]:
        ahead += 1
    if begin + ahead < len(old):
        return [[*_position(content, at + ahead), content[at + ahead : at + ahead + 1], old[begin + ahead]]]
    back = 1
    while back <= begin and content[at - back : at - back + 1] == old[begin - back]:
        back += 1
    if back > begin or at < back:
        return []
    return [[*_position(content, at - back), content[at - back], old[begin - back]]]


def _line_numbers(data: bytes, offsets: list[int]) -> list[int]:
    """Give the 1-based line of each of the ascending offsets."""
    numbers: list[int] = []
    line, seen = 1, 0
    for offset in offsets:
        line += data.count(b"\n", seen, offset)
        seen = offset
        numbers.append(line)
    return numbers
