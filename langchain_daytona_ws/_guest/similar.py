r"""Find the text that an edit's ``old_string`` means if the file differs a little. Pure; used by host and guest.

These differences are accepted:

- A line feed also matches ``\r\n``.
- NUL, ESC and bytes that are not UTF-8 may be written as escapes such as ``\xe9``, as `text.as_shown` shows them.
  `text_of` decodes each byte that is not UTF-8 to one lone surrogate.
- With ``loose``: look-alike characters, other Unicode forms, and additional invisible characters.

The functions import ``re`` themselves: it takes 5 ms, and most edits find their text byte for byte.
"""

from __future__ import annotations

from langchain_daytona_ws._guest import alike

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LOOSE_CHARS = 4_000  # maximum length of an ``old_string`` that is searched with ``loose``
MAX_SKIPPING = 20_000_000  # maximum of content characters multiplied by units; takes up to a second
MAX_TRIED = 40_000_000  # maximum of positions where the first units match multiplied by units; takes up to two seconds
MAX_COMPARED = 4_000_000  # maximum number of pairs of equal units; takes up to two seconds

_SHOWN_BYTE = r"\\x(?:00|1b|[89a-f][0-9a-f])"
# A unit: an escape, a decomposed Korean syllable, or a character with its combining marks.
_UNIT = "(?s)" + _SHOWN_BYTE + "|[\u1100-\u115f][\u1160-\u11a7][\u11a8-\u11ff]?|.[\u0300-\u036f\u3099\u309a]*"
_CLASSES = (" " + alike.SPACES, "'" + alike.SINGLE_QUOTES, '"' + alike.DOUBLE_QUOTES, "-" + alike.DASHES)
_INVISIBLE = "[" + alike.INVISIBLE + "]*"


class TooLongError(Exception):
    """Two texts are too long to be compared."""


class Match:
    """A match in the content. ``pieces`` contains, for each unit, the characters that match it."""

    __slots__ = ("end", "pieces", "start")

    def __init__(self, start: int, end: int, pieces: list[str]) -> None:
        self.start = start
        self.end = end
        self.pieces = pieces


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def shows_bytes(text: str) -> bool:
    if "\\x" not in text:
        return False
    import re

    return re.search(_SHOWN_BYTE, text) is not None


def _byte(unit: str) -> str:
    r"""Return the character for which ``\xNN`` stands: a control character, or the lone surrogate of a byte."""
    code = int(unit[2:], 16)
    return chr(code if code < 0x80 else 0xDC00 + code)


def _is_shown_byte(unit: str) -> bool:
    return len(unit) == 4 and unit[0] == "\\" and shows_bytes(unit)


def units(text: str) -> list[str]:
    r"""Split a text into units: characters with their combining marks, and escapes such as ``\xe9``."""
    import re

    return re.findall(_UNIT, text)


def find(content: str, wanted: list[str], loose: bool, limit: int) -> list[Match]:
    """Find the units in the content, at most ``limit + 1`` times.

    With ``loose``, units that look the same match too. Invisible characters between units are then skipped, unless this
    could take more than a second. If the first units match at too many positions, as in a long row of dashes, the
    comparison would take too long: there is no match.
    """
    import re

    forms = [_form(unit, loose) for unit in wanted]
    if not any(forms):  # a text of invisible characters would match everywhere
        return []
    between = ""
    if (
        loose
        and len(content) * len(wanted) <= MAX_SKIPPING
        and any(char in content for char in alike.INVISIBLE)
    ):
        between = _INVISIBLE
    else:
        # Count the positions where the first units match, of ever more units, until the whole text is quick to search.
        size, positions = 4, len(content)
        while positions * len(wanted) > MAX_TRIED and size < len(wanted):
            size *= 2
            heads = re.finditer("(?=" + "".join(forms[:size]) + ")", content)
            positions = 0
            for positions, _ in enumerate(heads, 1):
                if positions * size > MAX_TRIED:
                    return []
    matches = []
    for match in re.finditer(between.join(form for form in forms if form), content):
        matches.append(
            Match(match.start(), match.end(), list(_pieces(content, match.start(), forms, between)))
        )
        if len(matches) > limit:
            break
    return matches


def _form(unit: str, loose: bool) -> str:
    from re import escape

    if _is_shown_byte(unit):
        return "(?:%s|%s)" % (escape(unit), escape(_byte(unit)))
    if unit == "\n":
        return "\r?\n"
    if not loose:
        return escape(unit)
    for same in _CLASSES:
        if unit in same:
            return "[" + escape(same) + "]"
    if unit in alike.INVISIBLE:
        return ""
    if unit.isascii():
        return escape(unit)
    return "(?:" + "|".join(escape(form) for form in alike.forms(unit)) + ")"


def _pieces(content: str, at: int, forms: list[str], between: str) -> Iterator[str]:
    """Yield for each unit the characters that match it, with the invisible characters before them."""
    import re

    for number, form in enumerate(forms):
        match = re.compile((between if number and form else "") + form).match(content, at)
        assert match is not None  # noqa: S101 - the whole pattern matched here
        at = match.end()
        yield match.group()


def is_changed(unit: str, piece: str) -> bool:
    """Return whether a piece differs from its unit. Another line end, or a byte for its escape, does not count."""
    return unit not in (piece, "\n") and not (len(piece) == 1 and _is_shown_byte(unit))


def replaced(wanted: list[str], pieces: list[str], new: str, newline: str, loose: bool) -> str:
    r"""Return the new text, with the file's own characters wherever the new text repeats the old text.

    If an escape in the old text matched a byte, escapes in the new text become bytes too. Otherwise they stay text.

    Raises:
        TooLongError: With ``loose``: the comparison would take too long.
    """
    new_units = units(new)
    shared = min(len(wanted), len(new_units))
    head = next((at for at in range(shared) if wanted[at] != new_units[at]), shared)
    shared -= head
    tail = next((at for at in range(shared) if wanted[-1 - at] != new_units[-1 - at]), shared)
    old_to, new_to = len(wanted) - tail, len(new_units) - tail
    try:
        kept = [
            (head + a, head + b, size) for a, b, size in _shared(wanted[head:old_to], new_units[head:new_to])
        ]
    except TooLongError:
        if loose:
            raise
        kept = []
    out, at = pieces[:head], head
    as_bytes = any(len(piece) == 1 and _is_shown_byte(unit) for unit, piece in zip(wanted, pieces))
    for old_at, new_at, size in [*kept, (old_to, new_to, tail)]:
        out += [_written(unit, newline, as_bytes) for unit in new_units[at:new_at]]
        out += pieces[old_at : old_at + size]
        at = new_at + size
    return "".join(out)


def _shared(wanted: list[str], new: list[str]) -> list[tuple[int, int, int]]:
    """Return the blocks that two texts share: the start in each text, and the length.

    The steps are counted, because the time can grow with the third power of the length, for example for dashes.

    Raises:
        TooLongError: The comparison would take more than MAX_COMPARED steps.
    """
    import difflib  # needed only if a text was not found byte for byte

    counts: dict[str, int] = {}
    for unit in new:
        counts[unit] = counts.get(unit, 0) + 1
    pairs = [0]
    for unit in wanted:
        pairs.append(pairs[-1] + counts.get(unit, 0))
    steps_left = MAX_COMPARED

    class Matcher(difflib.SequenceMatcher):  # type: ignore[type-arg]  # Python 3.8 does not accept [str] here
        def find_longest_match(
            self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
        ) -> difflib.Match:
            nonlocal steps_left
            # difflib visits, for each unit of ``wanted``, every occurrence of it in ``new``.
            steps_left -= pairs[len(wanted) if ahi is None else ahi] - pairs[alo]
            if steps_left < 0:
                raise TooLongError
            return super().find_longest_match(alo, ahi, blo, bhi)

    blocks = Matcher(None, wanted, new, autojunk=False).get_matching_blocks()
    return [(block.a, block.b, block.size) for block in blocks]


def _written(unit: str, newline: str, as_bytes: bool) -> str:
    if unit == "\n":
        return newline
    if as_bytes and _is_shown_byte(unit):
        return _byte(unit)
    return unit
