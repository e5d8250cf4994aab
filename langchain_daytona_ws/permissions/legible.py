"""Show a person text that may be hostile: on one line or as a diff, bounded, with nothing invisible."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Printable by their category, and yet drawn as nothing: fillers, joiners and variation selectors.
_DRAWN_AS_NOTHING = frozenset(
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
# Above this, finding the smallest difference costs more than it tells.
_MAX_LINES_COMPARED = 1000
_FROM_ARGUMENTS = "(from the call's arguments, not the file)"


# What may stand in a path that is shown without quotes: nothing that a summary or a diff puts after a path.
_BARE = frozenset("_-./+=@%")


def _shown(character: str, *, escaped: str) -> str:
    if character in escaped:
        return f"\\{character}"
    if character.isprintable() and character not in _DRAWN_AS_NOTHING:
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
        text: Anything; lone surrogates included.
        limit: Longest result in characters, 60 or more. Of a longer text both ends are kept, with a
            notice of what is left out between them: either end may hold what matters.
        double_backslash: Write ``\`` as ``\\``, so that the text can't hold what looks like an escape.
    """
    return _one_line(text, limit, escaped="\\" if double_backslash else "")


def name(path: str, limit: int) -> str:
    r"""Return a path for the middle of a line, where it can't be taken for the words around it.

    A plain one comes as it is; one with a blank, a bracket, a comma, a quote … in double quotes, with
    ``\"`` for each of its own, so that ``a (3 lines)`` does not look like ``a`` and its size.

    Args:
        path: Anything.
        limit: Longest result in characters, 62 or more; see `one_line`.
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
    head, head_count = _take(text, room * 2 // 3, escaped=escaped)
    tail, tail_count = _take(reversed(text), room - room * 2 // 3, escaped=escaped)
    # A dense text may have its ends met before the budget is used up: never show a character twice.
    tail_count = min(tail_count, len(text) - head_count)
    left_out = len(text) - head_count - tail_count
    end = "".join(reversed(tail[:tail_count]))
    return f"{''.join(head)} [… {left_out:,} characters left out …] {end}"


def _take(characters: Iterable[str], room: int, *, escaped: str) -> tuple[list[str], int]:
    taken: list[str] = []
    for character in characters:
        shown = _shown(character, escaped=escaped)
        room -= len(shown)
        if room < 0:
            break
        taken.append(shown)
    return taken, len(taken)


def write_diff(path: str, content: str) -> str:
    """Return the unified diff of writing ``content``: all additions, since the old content is not known."""
    lines = content.split("\n")
    ends_with_newline = lines[-1] == ""
    if ends_with_newline:
        lines.pop()
    body = [f"@@ -0,0 +1,{len(lines)} @@", *(f"+{line}" for line in lines)] if lines else []
    if lines and not ends_with_newline:
        body.append("\\ No newline at end of file")
    return _diff(f"--- {_FROM_ARGUMENTS}", f"+++ {name(path, 200)}", body)


def edit_diff(path: str, old: str, new: str, *, every: bool) -> str:
    """Return the unified diff of ``old`` → ``new``; its line numbers count within the two strings.

    Args:
        path: The file to be edited.
        old: Text to be replaced.
        new: Text to put in its place.
        every: Whether each occurrence is replaced, which the header then says.
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
    """Return a diff that was made elsewhere with the same protection; one made here comes back unchanged."""
    return "\n".join(_bounded(diff.split("\n"), MAX_DIFF_LINES + 3))


def _bounded(lines: Sequence[str], most: int) -> Sequence[str]:
    if len(lines) > most:
        head, tail = most * 2 // 3, most // 3
        # Starts with "[": no line of a diff does, so that the content can't forge it.
        notice = f"[… {len(lines) - head - tail:,} lines of the diff left out …]"
        lines = [*lines[:head], notice, *lines[-tail:]]
    # A terminal escape in a file is as dangerous to the prompt as one in a command. Backslashes stay single:
    # code is full of them.
    return [one_line(line, MAX_DIFF_LINE_CHARS, double_backslash=False) for line in lines]
