"""Display hostile text safely: on one line or as a diff, with a size limit and without invisible characters."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Printable by their Unicode category, but invisible: fillers, joiners and variation selectors.
_INVISIBLE = frozenset(
    chr(code)
    for codes in (
        (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        range(0x180B, 0x1810),
        range(0xFE00, 0xFE10),
        range(0xE0100, 0xE01F0),
    )
    for code in codes
)
_QUOTED = '\\"'
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

MAX_DIFF_LINES = 200
MAX_DIFF_LINE_CHARS = 300
# Above this number of lines, comparing the lines is too slow.
_MAX_LINES_COMPARED = 1000
_FROM_ARGUMENTS = "(from the call's arguments, not the file)"


# A path of these characters, ASCII letters and digits is displayed without quotes. The text that follows a path in
# summaries and diffs begins with none of them, so the end of the path can be seen.
_BARE = frozenset("_-./+=@%")


def _shown(character: str, *, escaped: str) -> str:
    if character in escaped:
        return f"\\{character}"
    if character.isprintable() and character not in _INVISIBLE:
        return character
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def one_line(text: str, limit: int, *, double_backslash: bool = True) -> str:
    r"""Return ``text`` as one line in which every control, bidi and zero-width character is visible.

    Args:
        text: Any text, lone surrogates included.
        limit: Maximum length of the result in characters, 55 or more. A longer text keeps both ends, because either may
            matter, with the number of omitted characters between them.
        double_backslash: If true, write ``\`` as ``\\``, so that the text can't imitate an escape.
    """
    return _one_line(text, limit, escaped="\\" if double_backslash else "")


def name(path: str, limit: int) -> str:
    r"""Return a path for display within a line, quoted if it could be confused with the text around it.

    A plain path is returned unchanged. A path with a space, bracket, comma, quote … is put in double quotes, and its
    own quotes become ``\"``: ``a (3 lines)`` can't look like the path ``a`` and its size.

    Args:
        path: Any text.
        limit: Maximum length of the result in characters, 57 or more; see `one_line`.
    """
    if path and len(path) <= limit and all(c in _BARE or (c.isascii() and c.isalnum()) for c in path):
        return path
    return f'"{_one_line(path, limit - 2, escaped=_QUOTED)}"'


def _one_line(text: str, limit: int, *, escaped: str) -> str:
    if len(text) <= limit:
        whole = "".join(_shown(c, escaped=escaped) for c in text)
        if len(whole) <= limit:
            return whole
    room = max(limit - 50, 2)
    head = _take(text, room * 2 // 3, escaped=escaped)
    tail = _take(reversed(text), room - room * 2 // 3, escaped=escaped)
    omitted = len(text) - len(head) - len(tail)
    return f"{''.join(head)} [… {omitted:,} characters left out …] {''.join(reversed(tail))}"


def _take(characters: Iterable[str], room: int, *, escaped: str) -> list[str]:
    taken: list[str] = []
    for character in characters:
        shown = _shown(character, escaped=escaped)
        room -= len(shown)
        if room < 0:
            break
        taken.append(shown)
    return taken


def write_diff(path: str, content: str) -> str:
    """Return a unified diff that adds all of ``content``; the old content is not known."""
    lines = content.split("\n")
    ends_with_newline = lines[-1] == ""
    if ends_with_newline:
        lines.pop()
    body = [f"@@ -0,0 +1,{len(lines)} @@", *(f"+{line}" for line in lines)] if lines else []
    if lines and not ends_with_newline:
        body.append("\\ No newline at end of file")
    return _diff(f"--- {_FROM_ARGUMENTS}", f"+++ {name(path, 200)}", body)


def edit_diff(path: str, old: str, new: str, *, every: bool) -> str:
    """Return the unified diff from ``old`` to ``new``; line numbers are relative to the two strings.

    The header shows ``path`` and, if ``every`` is true, that all occurrences are replaced.
    """
    before, after = old.split("\n"), new.split("\n")
    if max(len(before), len(after)) <= _MAX_LINES_COMPARED:
        body = list(difflib.unified_diff(before, after, lineterm=""))[2:]
    else:
        hunk = f"@@ -1,{len(before)} +1,{len(after)} @@"
        body = [hunk, *(f"-{line}" for line in before), *(f"+{line}" for line in after)]
    times = ", every occurrence" if every else ""
    shown = name(path, 200)
    return _diff(f"--- {shown}: old_string{times} {_FROM_ARGUMENTS}", f"+++ {shown}: new_string", body)


def _diff(old_header: str, new_header: str, body: Sequence[str]) -> str:
    return "\n".join([old_header, new_header, *_bounded(body, MAX_DIFF_LINES)])


def safe_diff(diff: str) -> str:
    """Return a diff from another source, escaped and bounded; a diff from this module is returned unchanged."""
    return "\n".join(_bounded(diff.split("\n"), MAX_DIFF_LINES + 3))


def _bounded(lines: Sequence[str], max_lines: int) -> Sequence[str]:
    if len(lines) > max_lines:
        head, tail = max_lines * 2 // 3, max_lines // 3
        # No line of a diff starts with "[", so the compared contents can't imitate this notice.
        notice = f"[… {len(lines) - head - tail:,} lines of the diff left out …]"
        lines = [*lines[:head], notice, *lines[-tail:]]
    # Terminal escapes in a file are as dangerous as in a command. Backslashes stay single: they are common in code.
    return [one_line(line, MAX_DIFF_LINE_CHARS, double_backslash=False) for line in lines]
