"""Match glob patterns segment by segment, without regular expressions. Pure; used by host and guest.

A pattern may contain ``*``, ``?``, ``[a-z]``, ``[!a]`` and ``{a,b}``. ``**`` as a whole segment matches any number of
directories. A backslash makes the next character literal. Hidden names match like other names. Even a hostile pattern
takes little time: a segment is matched with one backtracking point, and braces are expanded up to two limits.

If a glob matches no file, the model may have meant another pattern (a "reading" of the glob). Models write
``app/[locale]/**`` for a directory named ``[locale]``, ``*.ts,*.tsx`` for two globs, and ``@(a|b)`` for ``{a,b}``. They
also write ``src/**/*.py`` in a search that already starts in ``src``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, Literal

    Kind = Literal["path", "brackets", "commas", "alternatives"]  # kinds of readings
    States = frozenset[tuple[int, int]]  # positions in a glob: index of an alternative, index of its segment

MAX_ALTERNATIVES = 256
MAX_CHARS = 65_536  # maximum of characters of all alternatives together
DEEP = "**"
# Rarely wanted and often huge: searched only if the path or the pattern contains the name.
SKIPPED = (".git", "node_modules", "__pycache__", ".venv")

PATH: Final = "path"
BRACKETS: Final = "brackets"
COMMAS: Final = "commas"
ALTERNATIVES: Final = "alternatives"
READINGS: Final = (PATH, BRACKETS, COMMAS, ALTERNATIVES)

_BRACE = r"\{[^{}]*\}"
_ALTERNATIVES = r"[@+]\(([^()/|]*\|[^()/]*)\)"


class GlobError(ValueError):
    """The pattern is invalid; the message is the reason."""


class Segment:
    """One path segment of a pattern: a list of tokens, or a literal name."""

    __slots__ = ("literal", "tokens")

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        # A token is (kind, value): "c" is a character, "?" any character, "*" any characters, "[" a class.
        plain = all(kind == "c" for kind, _ in self.tokens)
        self.literal = "".join(str(value) for _, value in self.tokens) if plain else None

    def matches(self, name: str) -> bool:
        if self.literal is not None:
            return name == self.literal
        tokens = self.tokens
        at = char = 0
        star, resume = -1, 0
        while char < len(name):
            if at < len(tokens) and tokens[at][0] == "*":
                star, resume = at, char
                at += 1
            elif at < len(tokens) and _accepts(tokens[at], name[char]):
                at += 1
                char += 1
            elif star >= 0:  # extend the last star by one character
                resume += 1
                at, char = star + 1, resume
            else:
                return False
        return all(kind == "*" for kind, _ in tokens[at:])


class Glob:
    """A compiled pattern. ``alternatives`` are the patterns that its braces stand for; the segment None is ``**``.

    During a walk of a tree, each directory has a set of positions: how far its path has matched the pattern.
    """

    def __init__(self, pattern: str) -> None:
        self.only_dirs = pattern.endswith("/")
        self.alternatives: list[list[Segment | None]] = []
        for text in _expanded(pattern):
            parts = [part for part in text.split("/") if part not in ("", ".")]
            if ".." in parts:
                raise GlobError("a pattern can't contain '..'")
            segments: list[Segment | None] = []
            for part in parts:
                if part != DEEP:
                    segments.append(Segment(part))
                elif not segments or segments[-1] is not None:
                    segments.append(None)
            if segments:
                self.alternatives.append(segments)
        if not self.alternatives:
            raise GlobError("the pattern is empty")

    def start(self) -> States:
        return self._closed({(index, 0) for index in range(len(self.alternatives))})

    def step(self, states: States, name: str) -> States:
        """Return the positions after ``name``; an empty set if neither ``name`` nor anything below it can match."""
        after = set()
        for index, at in states:
            segments = self.alternatives[index]
            if at == len(segments):
                continue
            segment = segments[at]
            if segment is None:
                after.add((index, at))
            elif segment.matches(name):
                after.add((index, at + 1))
        return self._closed(after)

    def accepts(self, states: States) -> bool:
        return any(at == len(self.alternatives[index]) for index, at in states)

    def goes_on(self, states: States) -> bool:
        """Return whether something below a directory with these positions can match."""
        return any(at < len(self.alternatives[index]) for index, at in states)

    def has_literal(self, name: str, states: States | None = None) -> bool:
        """Return whether a segment of the pattern is the literal ``name``; with ``states``, only at these positions."""
        return any(
            segment is not None and segment.literal == name
            for index, segments in enumerate(self.alternatives)
            for at, segment in enumerate(segments)
            if states is None or (index, at) in states
        )

    def matches(self, path: str) -> bool:
        states = self.start()
        for name in path.split("/"):
            states = self.step(states, name)
        return self.accepts(states)

    def _closed(self, states: set[tuple[int, int]]) -> States:
        """Add the position after each ``**``, because ``**`` also matches no directory at all."""
        more = {
            (index, at + 1)
            for index, at in states
            if at < len(self.alternatives[index]) and self.alternatives[index][at] is None
        }
        return frozenset(states | more)


class GlobWalk:
    """Decides during a walk of a tree which entries match a pattern, and which directories are entered."""

    def __init__(self, glob: Glob) -> None:
        self.skipped: list[str] = []  # paths of SKIPPED directories, which were not entered
        self._glob = glob

    def directory(self, above: States, path: str, name: str) -> tuple[States | None, bool]:
        """Return the positions of a directory (None: do not enter it), and whether the directory itself matches."""
        after = self._glob.step(above, name)
        matches = self._glob.only_dirs and self._glob.accepts(after)
        if not self._glob.goes_on(after):
            return None, matches
        if name in SKIPPED and not self._glob.has_literal(name, above):
            self.skipped.append(path)
            return None, matches
        return after, matches

    def file(self, above: States, name: str) -> bool:
        return not self._glob.only_dirs and self._glob.accepts(self._glob.step(above, name))


def compiled(pattern: str) -> tuple[str, Glob]:
    """Split a pattern: return its first directories without wildcards ("." if none), and the compiled rest.

    Raises:
        GlobError: The pattern is invalid.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    count = 0
    while count < len(parts) - 1 and not set(parts[count]) & set("*?[]{}\\") and parts[count] != "..":
        count += 1
    return "/".join(parts[:count]) or ".", Glob("/".join(parts[count:]) + "/" * pattern.endswith("/"))


def _accepts(token: tuple[str, object], char: str) -> bool:
    kind, value = token
    if kind == "?":
        return True
    if kind == "[":
        assert isinstance(value, tuple)  # noqa: S101 (for the type checker)
        negated, ranges = value
        return any(low <= char <= high for low, high in ranges) is not negated
    return kind == "c" and char == value


def _tokens(text: str) -> list[tuple[str, object]]:
    tokens: list[tuple[str, object]] = []
    at = 0
    may_have_class = True
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            if not tokens or tokens[-1][0] != "*":
                tokens.append(("*", ""))
        elif char == "?":
            tokens.append(("?", ""))
        elif char == "[" and may_have_class:
            members, after = _class(text, at)
            tokens.append(("c", "[") if members is None else ("[", members))
            # Without a closing bracket for this class, a later class has none either: do not search for it again.
            may_have_class = members is not None
            at = after
        elif char == "\\" and at < len(text):
            tokens.append(("c", text[at]))
            at += 1
        else:
            tokens.append(("c", char))
    return tokens


def _class(text: str, at: int) -> tuple[tuple[bool, list[tuple[str, str]]] | None, int]:
    """Parse a class after its ``[``; return the class, and the offset after it. Without a closing bracket the ``[`` is
    literal: return None.
    """
    start = at
    negated = text[at : at + 1] in ("!", "^")
    at += negated
    ranges: list[tuple[str, str]] = []
    first = True
    while at < len(text):
        if text[at] == "]" and not first:
            return (negated, ranges), at + 1
        first = False
        low, at = _class_char(text, at)
        high = low
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] not in ("]", ""):
            high, at = _class_char(text, at + 1)
        ranges.append((low, high))
    return None, start


def _class_char(text: str, at: int) -> tuple[str, int]:
    if text[at] == "\\" and at + 1 < len(text):
        at += 1
    return text[at], at + 1


def _expanded(pattern: str) -> list[str]:
    """Expand braces, outer braces first. Braces without a comma or without a closing brace are literal."""
    done: list[str] = []
    todo = [(pattern, 0)]
    while todo:
        text, start = todo.pop()
        found = _brace(text, start)
        if found is None:
            done.append(text)
        else:
            opening, closing, choices = found
            todo += [(text[:opening] + choice + text[closing + 1 :], opening) for choice in reversed(choices)]
        if len(done) + len(todo) > MAX_ALTERNATIVES:
            raise GlobError(f"the braces stand for more than {MAX_ALTERNATIVES} patterns")
        if sum(map(len, done)) + sum(len(text) for text, _ in todo) > MAX_CHARS:
            raise GlobError(f"the pattern, with its braces expanded, has more than {MAX_CHARS:,} characters")
    return done


def _brace(text: str, start: int) -> tuple[int, int, list[str]] | None:
    """Return start, end and choices of the first complete brace group with a comma, at or after ``start``.

    The text is read once for all groups: a hostile pattern may have thousands of opening braces.
    """
    first = len(text)
    opened: list[tuple[int, bool]] = []  # the open groups: offset, and whether the group has a comma
    at = start
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char == "{":
            opened.append((at, False))
        elif char == "," and opened:
            opened[-1] = (opened[-1][0], True)
        elif char == "}" and opened:
            opening, has_comma = opened.pop()
            if has_comma:
                first = min(first, opening)
        at += 1
    if first == len(text):
        return None
    closing, choices = _choices(text, first + 1)
    return first, closing, choices


def _choices(text: str, at: int) -> tuple[int, list[str]]:
    choices: list[str] = []
    depth, begin = 0, at
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char == "{":
            depth += 1
        elif char == "}" and depth:
            depth -= 1
        elif char == "}":
            return at, [*choices, text[begin:at]]
        elif char == "," and not depth:
            choices.append(text[begin:at])
            begin = at + 1
        at += 1
    raise AssertionError("`_brace` has found the end of the group")


def readings(pattern: str, path: str) -> list[tuple[Kind, str]]:
    """Return other readings of a glob, as ``(kind, pattern)``. The caller proposes a reading that matches a file.

    ``path`` is the directory to search, "" for the root.
    """
    found = list(_rewritten(pattern))
    if path and pattern.startswith(path + "/") and len(pattern) > len(path) + 1:
        rest = pattern[len(path) + 1 :]
        found = [(PATH, rest), *found, *_rewritten(rest)]
    return found


def _rewritten(pattern: str) -> Iterator[tuple[Kind, str]]:
    import re  # takes 5 ms; `glob` calls this function only if nothing matched

    if "[" in pattern:
        yield BRACKETS, re.sub(r"(\\.)|\[", lambda found: found[1] or "\\[", pattern)
    if "," in re.sub(_BRACE, "", pattern):
        # Commas within braces stay.
        parts = re.findall(f"(?:{_BRACE}|[^,])+", pattern)
        yield COMMAS, "{" + ",".join(part.strip() for part in parts if part.strip()) + "}"
    if re.search(_ALTERNATIVES, pattern):
        yield (
            ALTERNATIVES,
            re.sub(_ALTERNATIVES, lambda found: "{" + found[1].replace("|", ",") + "}", pattern),
        )
