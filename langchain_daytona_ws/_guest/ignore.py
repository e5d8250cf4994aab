"""Match paths against gitignore patterns, with the results of ``git check-ignore``. Pure; used by host and guest.

The syntax is that of a ``.gitignore`` in the workspace's directory: comments, ``!``, an anchoring ``/``, a final ``/``
for directories only, ``*``, ``?``, ``[...]`` and ``**``. As in git, ``?`` and ``[...]`` match one byte, not one
character. Patterns with many ``*`` are not slow: the regular expressions do not backtrack over earlier wildcards. The
time to match a path grows linearly with the number of patterns.
"""

from __future__ import annotations

import re

_SPECIAL = b"*?[\\"
_STAR = b"[^/]*?"  # any run of characters in one name
_DEEP = b"(?:[^/]*/)*?"  # "**/": any number of directories
_DEEPER = b"(?:[^/]*/)+?"  # "**\/": at least one directory, as in git
_REST = b".*"  # "**" at the end

_PRINTABLE = frozenset(range(0x20, 0x7F))
_DIGITS = frozenset(b"0123456789")
_LOWER = frozenset(b"abcdefghijklmnopqrstuvwxyz")
_UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ALNUM = _DIGITS | _LOWER | _UPPER
_SPACE = frozenset(b" \t\n\r")
_CLASSES = {
    b"alnum": _ALNUM,
    b"alpha": _LOWER | _UPPER,
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset(range(0x20)) | {0x7F},
    b"digit": _DIGITS,
    b"graph": _PRINTABLE - {0x20},
    b"lower": _LOWER,
    b"print": _PRINTABLE,
    b"punct": _PRINTABLE - _ALNUM - {0x20},
    b"space": _SPACE,
    b"upper": _UPPER,
    b"xdigit": _DIGITS | frozenset(b"abcdefABCDEF"),
}


class Ignore:
    """The compiled patterns of one list. If several patterns match a path, the last of them decides."""

    def __init__(self, patterns: list[str]) -> None:
        rules = [rule for rule in map(_rule, patterns) if rule is not None]
        self._runs: list[_Run] = []
        start = 0
        for end in range(1, len(rules) + 1):
            if end == len(rules) or rules[end].negated is not rules[start].negated:
                self._runs.append(_Run(rules[start:end]))
                start = end
        self._runs.reverse()

    def matches(self, path: str, is_dir: bool) -> bool:
        """Return whether ``path`` itself (relative to the workspace) is ignored."""
        if not self._runs:
            return False
        whole = path.encode("utf-8", "surrogateescape")
        name = whole[whole.rfind(b"/") + 1 :]
        for run in self._runs:
            if run.matches(whole, name, is_dir):
                return not run.negated
        return False

    def covers(self, path: str, is_dir: bool) -> bool:
        """Return whether ``path`` or a directory above it is ignored."""
        if not self._runs:
            return False
        parents = [at for at, char in enumerate(path) if char == "/"]
        return any(self.matches(path[:at], True) for at in parents) or self.matches(path, is_dir)


class _Rule:
    __slots__ = ("negated", "only_dirs", "tokens", "whole")

    def __init__(self, negated: bool, only_dirs: bool, whole: bool, tokens: list[bytes]) -> None:
        self.negated = negated
        self.only_dirs = only_dirs
        self.whole = whole  # True: matched against the whole path; False: against the name alone
        self.tokens = tokens


class _Run:
    """Consecutive patterns that all ignore, or all re-include (``!``), compiled for directories and for other paths."""

    __slots__ = ("_dirs", "_files", "negated")

    def __init__(self, rules: list[_Rule]) -> None:
        self.negated = rules[0].negated
        self._dirs = _expressions(rules)
        self._files = _expressions([rule for rule in rules if not rule.only_dirs])

    def matches(self, path: bytes, name: bytes, is_dir: bool) -> bool:
        by_name, by_path = self._dirs if is_dir else self._files
        return bool((by_name and by_name.fullmatch(name)) or (by_path and by_path.fullmatch(path)))


def _expressions(rules: list[_Rule]) -> tuple[re.Pattern[bytes] | None, re.Pattern[bytes] | None]:
    found = []
    for whole in (False, True):
        group = _Groups()
        choices = [group.expression(rule.tokens) for rule in rules if rule.whole is whole]
        found.append(re.compile(b"|".join(choices), re.DOTALL) if choices else None)
    return found[0], found[1]


class _Groups:
    """Builds the parts of one ``a|b|c`` expression. Each named group in it needs its own number."""

    def __init__(self) -> None:
        self._count = 0

    def expression(self, tokens: list[bytes]) -> bytes:
        """Join the tokens to an expression in which each wildcard except the last keeps its shortest match.

        The shortest match leaves the most text for later wildcards: if the rest of the pattern does not match that
        text, a longer match does not help.
        """
        deep = [at for at, token in enumerate(tokens) if token in (_DEEP, _DEEPER)]
        bounds = [0, *deep, len(tokens)]
        chunks = [tokens[begin:end] for begin, end in zip(bounds, bounds[1:])]
        last = len(chunks) - 1
        translated = [self._chunk(chunk, last=at == last) for at, chunk in enumerate(chunks)]
        return b"".join(self._keep(part) if 0 < at < last else part for at, part in enumerate(translated))

    def _chunk(self, tokens: list[bytes], *, last: bool) -> bytes:
        stars = [at for at, token in enumerate(tokens) if token is _STAR]
        bounds = [0, *stars, len(tokens)]
        pieces = [b"".join(tokens[begin:end]) for begin, end in zip(bounds, bounds[1:])]
        kept = range(1, len(pieces) - last)
        return b"".join(self._keep(piece) if at in kept else piece for at, piece in enumerate(pieces))

    def _keep(self, expression: bytes) -> bytes:
        """Return an atomic group: an expression into which ``re`` does not backtrack.

        ``re`` itself has atomic groups only from Python 3.11 on.
        """
        self._count += 1
        return b"(?=(?P<g%d>%b))(?P=g%d)" % (self._count, expression, self._count)


def _rule(line: str) -> _Rule | None:
    """Parse one line; return None for a comment, an empty line or a pattern that never matches."""
    text = _without_trailing_spaces(line.encode("utf-8", "surrogateescape"))
    if text[:1] == b"#":
        return None
    negated = text[:1] == b"!"
    text = text[negated:]
    only_dirs = text[-1:] == b"/"
    if only_dirs:
        text = text[:-1]
    whole = b"/" in text
    if text[:1] == b"/":
        text = text[1:]
    try:
        tokens = _tokens(text, whole)
    except ValueError:
        return None
    return _Rule(negated, only_dirs, whole, tokens) if tokens else None


def _without_trailing_spaces(text: bytes) -> bytes:
    """Remove the spaces at the end, except one after a backslash."""
    end = len(text)
    while text[end - 1 : end] == b" ":
        end -= 1
    backslashes = end - len(text[:end].rstrip(b"\\"))
    return text[: end + 1] if backslashes % 2 and end < len(text) else text[:end]


def _tokens(text: bytes, whole: bool) -> list[bytes]:
    """Translate a pattern into regular expressions: one for each byte, class or wildcard of the pattern.

    Raises:
        ValueError: A class is malformed, or a backslash is the last character. In git this pattern never matches.
    """
    tokens: list[bytes] = []
    # Git compares the text before the first wildcard separately, so the first "**" needs no "/" before it.
    wild = next((at for at, char in enumerate(text) if char in _SPECIAL), len(text))
    at = 0
    while at < len(text):
        char = text[at : at + 1]
        if char == b"*":
            end = at
            while text[end : end + 1] == b"*":
                end += 1
            deep = whole and end - at > 1 and (at == wild or text[at - 1 : at] == b"/")
            token, at = _stars(text, end) if deep else (_STAR, end)
            tokens.append(token)
        elif char == b"?":
            tokens.append(b"[^/]")
            at += 1
        elif char == b"[":
            members, at = _members(text, at + 1)
            listed = b"".join(b"\\x%02x" % member for member in sorted(members))
            tokens.append(b"[%b]" % listed if listed else b"(?!)")
        else:
            at += char == b"\\"
            if at == len(text):
                raise ValueError("a backslash is the last character")
            tokens.append(re.escape(text[at : at + 1]))
            at += 1
    return tokens


def _stars(text: bytes, end: int) -> tuple[bytes, int]:
    """Return the expression for a ``**`` that ends at ``end``, and the offset where the pattern continues."""
    if end == len(text):
        return _REST, end
    if text[end : end + 1] == b"/":
        return _DEEP, end + 1
    return (_DEEPER, end + 2) if text[end : end + 2] == b"\\/" else (_STAR, end)


def _members(text: bytes, at: int) -> tuple[frozenset[int], int]:
    """Parse a class from the byte after its ``[``; return the bytes that the class matches, and the offset after it."""
    negated = text[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    low: int | None = None  # the byte before a possible "-"
    first = True
    while first or text[at : at + 1] != b"]":
        first = False
        if text[at : at + 2] == b"[:":
            end = text.find(b"]", at + 2)
            if end < 0:
                raise ValueError("the class has no end")
            if end > at + 2 and text[end - 1 : end] == b":":
                name = text[at + 2 : end - 1]
                if name not in _CLASSES:
                    raise ValueError("no such class of characters")
                members |= _CLASSES[name]
                low, at = None, end + 1
                continue
        ranged = low is not None and text[at : at + 1] == b"-" and text[at + 1 : at + 2] not in (b"", b"]")
        high, at = _member(text, at + ranged)
        if ranged and low is not None:
            members.update(range(low, high + 1))
            low = None
        else:
            members.add(high)
            low = high
    chosen = frozenset(range(256)) - members if negated else frozenset(members)
    return chosen - frozenset(b"/"), at + 1


def _member(text: bytes, at: int) -> tuple[int, int]:
    at += text[at : at + 1] == b"\\"
    if at >= len(text):
        raise ValueError("the class has no end")
    return text[at], at + 1
