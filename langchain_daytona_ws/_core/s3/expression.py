r"""Search for regular expressions in ripgrep's syntax, in linear time with RE2.

``\w``, ``\d``, ``\s`` and ``\b`` are ASCII in RE2 and Unicode in ripgrep, and ripgrep never matches a line feed. So a
pattern is parsed and translated. A pattern without a known translation needs ripgrep.

A pattern without operators is searched as bytes. This does not need RE2 (google-re2, the extra ``search``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

# A piece is searched between two checks of the clock. It ends at the first end of a line after this number of bytes.
PIECE_BYTES = 256 << 10
# The work of a search is the number of bytes times the number of instructions of the compiled pattern. If RE2 runs out
# of memory for its automaton, each byte costs about 10 ns per instruction (measured).
# PIECE_WORK limits the work from the beginning of a piece to the byte from which the end of its last line is searched,
# LINE_WORK the work from this byte to the end of the line.
PIECE_WORK = 200_000_000
LINE_WORK = 1_000_000_000

# The classes of regex-syntax, which ripgrep uses (Unicode, UTS 18 annex C).
_WORD = (
    r"\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}"
    r"\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189}"
)
_DIGIT = r"\p{Nd}"
_SPACE = r"\t\v\f\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_CLASSES = {"w": _WORD, "d": _DIGIT, "s": _SPACE}
_OPERATORS = frozenset(".*+?|)^$")
_FOLDED = {b"k": b"(?:k|\xe2\x84\xaa)", b"s": b"(?:s|\xc5\xbf)"}  # also Kelvin sign and long s
_CONTROLS = {"t": "\\t", "r": "\\r", "f": "\\f", "v": "\\v", "a": "\\a"}
_CONTROL_CHARACTERS = {"\\t": "\t", "\\r": "\r", "\\f": "\f", "\\v": "\v", "\\a": "\a"}

# Unicode properties with the same names in RE2 and ripgrep. None of them contains the line feed.
_PROPERTIES = re.compile(
    "L[ultmo]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Zs?"
    "|Latin|Greek|Cyrillic|Han|Hiragana|Katakana|Hangul|Arabic|Hebrew|Thai"
)

_TOKEN = re.compile(
    r"""
    (?P<boundary>\\[bB]) (?![*+?{])
    | (?P<class>\\[wdsWDS])
    | (?P<property>\\(?P<sign>[pP])(?:\{(?P<long>[A-Za-z_]+)\}|(?P<letter>[A-Z])))
    | (?P<control>\\[trfva])
    | (?P<hex>\\x(?:\{(?P<wide>[0-9A-Fa-f]{1,6})\}|(?P<narrow>[0-9A-Fa-f]{2})))
    | (?P<escaped>\\[\\.+*?()|\[\]{}^$\#&~-])
    | (?P<flag>\(\?i\)) (?![*+?{])  # `(?i)*`: RE2 repeats what precedes `(?i)`, ripgrep refuses
    | (?P<group>\((?:\?:|\?P<[A-Za-z_][A-Za-z0-9_]*>|\?i:)?) (?!\?)
    | (?P<repeat>\{[0-9]{1,4}(?:,[0-9]{0,4})?\})
    | (?P<set>\[)
    | (?P<plain>[^\\\[({])
    """,
    re.VERBOSE | re.ASCII,
)
_IN_SET = re.compile(
    r"""
    (?P<posix>\[:\^?(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\])
    | (?P<class>\\[wds])
    | (?P<control>\\[trfva])
    | (?P<hex>\\x(?:\{(?P<wide>[0-9A-Fa-f]{1,6})\}|(?P<narrow>[0-9A-Fa-f]{2})))
    | (?P<escaped>\\[\\.+*?()|\[\]{}^$\#&~-])
    | (?P<plain>[^\\\[])
    """,
    re.VERBOSE | re.ASCII,
)


class NeedsRipgrepError(ValueError):
    """The search needs ripgrep: RE2 may interpret the pattern differently, take too long, or is not installed."""


class Expression:
    """A compiled pattern, which is written in ripgrep's syntax. Its construction may raise `NeedsRipgrepError`."""

    def __init__(self, pattern: str, *, ignore_case: bool) -> None:
        exact, loose, self._has_boundary = _translated(pattern)
        if ignore_case and "\\p" in pattern.lower():
            raise NeedsRipgrepError  # it is not known whether RE2 negates a class before it ignores case
        literal = _literal(pattern, ignore_case)
        if literal is not None:
            self._exact, size = literal, len(pattern)
        else:
            self._exact = _compiled(exact, ignore_case)
            size = self._exact.programsize
        self._loose = _compiled(loose, ignore_case) if self._has_boundary else self._exact
        self._piece_bytes = min(PIECE_BYTES, PIECE_WORK // size)
        self._longest_line_bytes = LINE_WORK // size

    def lines(self, data: bytes, check: Callable[[], None]) -> Iterator[tuple[int, int, int, int]]:
        """Yield (line number, start, end, start of the first match) for each matching line, with offsets in ``data``.

        ``check`` is called regularly, and raises after the deadline.

        Raises:
            NeedsRipgrepError: Only ripgrep can decide whether a line matches, or a line is too long.
        """
        # RE2's word boundaries may be wrong next to non-ASCII characters. If there are such characters, search without
        # boundaries, and check each found line with `_match`.
        doubtful = self._has_boundary and not data.isascii()
        search = (self._loose if doubtful else self._exact).search
        at, number = 0, 1
        while at < len(data):
            check()
            stop = data.find(b"\n", min(at + self._piece_bytes, len(data)) - 1) + 1 or len(data)
            # The searched piece ends at the end of a line, so a long line makes it longer.
            if stop - at - self._piece_bytes > self._longest_line_bytes:
                raise NeedsRipgrepError
            while at < stop:
                found = search(data, at, stop)
                if found is None or (found.start() == stop and data.endswith(b"\n", 0, stop)):
                    break
                start = data.rfind(b"\n", at, found.start()) + 1 or at
                end = data.find(b"\n", found.start(), stop)
                end = stop if end < 0 else end
                number += data.count(b"\n", at, start)
                match = found.start() if not doubtful else self._match(data[start:end], start)
                if match >= 0:
                    yield number, start, end, match
                at = end + 1
                number += 1
            if at < stop:
                number += data.count(b"\n", at, stop)
                at = stop

    def _match(self, line: bytes, start: int) -> int:
        """Return the offset of the match in a line that begins at ``start``; -1 if the line does not match."""
        if not line.isascii() and any(map(_is_wordlike, line.decode("utf-8", "replace"))):
            raise NeedsRipgrepError
        found = self._exact.search(line)
        return -1 if found is None else start + int(found.start())


def _literal(pattern: str, ignore_case: bool) -> Any:
    """Return the bytes expression for a pattern without operators; None for other patterns.

    With ``ignore_case``, also return None for a pattern that is not ASCII: its case folding depends on the Unicode
    release.
    """
    text = ""
    for token in _TOKEN.finditer(pattern):
        character = token[0] if token["plain"] else _character(token)
        if not character or (token["plain"] and character in _OPERATORS):
            return None
        text += _CONTROL_CHARACTERS.get(character) or (
            chr(int(character[3:-1], 16)) if token["hex"] else character[-1]
        )
    if not text or (ignore_case and not text.isascii()):
        return None
    try:
        pieces = [re.escape(character.encode()) for character in text]
    except UnicodeEncodeError:
        raise NeedsRipgrepError from None
    if ignore_case:
        pieces = [_FOLDED.get(piece.lower(), piece) for piece in pieces]
    return re.compile(b"".join(pieces), re.IGNORECASE if ignore_case else 0)


def _compiled(pattern: str, ignore_case: bool) -> Any:
    try:
        import re2
    except ImportError:  # the extra `search` is missing: not every platform has a wheel
        raise NeedsRipgrepError from None
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(b"(?m)" + pattern.encode(), options)
    except (re2.error, UnicodeEncodeError):
        raise NeedsRipgrepError from None


def _translated(pattern: str) -> tuple[str, str, bool]:
    """Translate a pattern to RE2.

    Returns:
        The exact translation, the translation without word boundaries, and whether the two differ. The translation
        without boundaries matches the same lines or more.
    """
    exact: list[str] = []
    loose: list[str] = []
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise NeedsRipgrepError
        at = token.end()
        if token["set"]:
            text, at = _set(pattern, at)
        else:
            text = _token(token)
        exact.append(text)
        loose.append("(?:)" if token["boundary"] else text)
    return "".join(exact), "".join(loose), exact != loose


def _token(token: re.Match[str]) -> str:
    if token["class"]:
        letter = token["class"][1]
        inner = _CLASSES[letter.lower()]
        return f"[{inner}]" if letter.islower() else f"[^{inner}\\n]"
    if token["property"]:
        name = token["long"] or token["letter"]
        if not _PROPERTIES.fullmatch(name):
            raise NeedsRipgrepError
        return f"\\p{{{name}}}" if token["sign"] == "p" else f"[^\\p{{{name}}}\\n]"
    return _character(token) or token[0]


def _character(token: re.Match[str]) -> str:
    """Translate an escaped character; return ``""`` for other tokens."""
    if token["control"]:
        return _CONTROLS[token["control"][1]]
    if token["hex"]:
        code = int(token["wide"] or token["narrow"], 16)
        if code in (0, 10) or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise NeedsRipgrepError
        return f"\\x{{{code:x}}}"
    return "\\" + token["escaped"][1] if token["escaped"] else ""


def _set(pattern: str, at: int) -> tuple[str, int]:
    """Translate the set whose opening bracket is before ``at``; return the translation and the offset after the set."""
    negated = pattern.startswith("^", at)
    at += negated
    out = ["[^\\n" if negated else "["]
    first = True
    before = ""  # the kind of the previous member, which decides the meaning of "-"
    while True:
        if pattern.startswith(("&&", "--", "~~"), at):
            raise NeedsRipgrepError
        token = _IN_SET.match(pattern, at)
        if token is None:
            raise NeedsRipgrepError
        at = token.end()
        if token[0] == "]" and not first:
            return "".join(out) + "]", at
        text, before = _member(token, pattern, at, before, first=first)
        out.append(text)
        first = False


def _member(token: re.Match[str], pattern: str, at: int, before: str, *, first: bool) -> tuple[str, str]:
    """Translate one member of a set; return the translation and the kind of the member."""
    if token["posix"]:
        if pattern.startswith("-", at) or before == "-":
            raise NeedsRipgrepError
        return token[0], "class"
    if token["class"]:
        if before == "-":
            raise NeedsRipgrepError
        return _CLASSES[token["class"][1]], "class"
    kind = "range" if before == "-" else "character"
    written = _character(token)
    if written:
        return written, kind
    if token[0] == "-":
        ends = pattern.startswith("]", at)
        if not (first or ends) and before != "character":
            raise NeedsRipgrepError
        # A ``-`` as the first or last member is literal.
        return ("\\-", kind) if first or ends else ("-", "-")
    return ("\\" + token[0] if token[0] in "]^" else token[0]), kind


def _is_wordlike(char: str) -> bool:
    """Return True for a non-ASCII character that may be part of a word for ripgrep."""
    if char <= "\x7f":
        return False
    category = unicodedata.category(char)
    # Of the categories Cf and So, only some characters are parts of words.
    return category[0] in "LMN" or category in ("Pc", "Cf", "So")
