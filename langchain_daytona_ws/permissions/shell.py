"""Decide whether a command is nothing but literal simple commands, and which words they are.

This is no shell parser. It knows the small part of bash in which what you read is what runs, and
answers "not sure" (None) to all the rest, so that a remembered prefix never covers more than its words.
"""

from __future__ import annotations

import re

Words = tuple[str, ...]

# One alternative per kind of token. What none of them matches (``$ ` & < > ( ) { } [ ] * ? ~ ! ^ #``, any
# other control character, and every non-ASCII character outside quotes) makes the whole command "not sure".
# Line breaks and tabs in quotes are left out too: a reader takes them for what they are outside of quotes.
_TOKEN = re.compile(
    r"""
      (?P<plain>[A-Za-z0-9_\-./,:=@%+]+)
    | \\(?P<escaped>[\x20-\x7e])
    | '(?P<single>[^'\x00-\x1f\x7f]*)'
    | "(?P<double>(?:[^"\\$`!\x00-\x1f\x7f]|\\[^!\x00-\x1f\x7f])*)"
    | (?P<blank>[\x20\t]+)
    | (?P<newline>\n)
    | (?P<joint>&&|\|\||\||;)
    """,
    re.VERBOSE,
)
_ESCAPE_IN_DOUBLE_QUOTES = re.compile(r'\\([$`"\\])')


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that bash reads as grammar where a command starts. Refused even when quoted: no program is named so.
_RESERVED = _names("""
    if then elif else fi for in until while do done case esac coproc select function time { } ! [[ ]]
""")

# Builtins that evaluate some arguments a second time: printf -v 'a[$(rm x)]' runs rm out of a literal word.
_EVALUATES_AGAIN = _names("""
    [ bind builtin command compgen complete compopt declare enable eval exec export getopts hash let local
    mapfile printf read readarray readonly set shift test trap typeset ulimit unset wait
""")


def simple_commands(command: str) -> tuple[Words, ...] | None:
    """Return the argv of each simple command in ``command``, in the order written.

    They may be joined by ``;``, ``&&``, ``||``, ``|`` or a line break, and hold plain words, quotes and
    backslashes without any expansion.

    Args:
        command: What would be given to bash, non-interactive.

    Returns:
        One tuple of words per simple command; None for anything else, a syntax error included.
    """
    if not _legible(command):
        return None
    segments: list[Words] = []
    words: list[str] = []
    word: str | None = None  # None between words; "" is a word (two quotes)
    unfinished = False  # after && || | a command has to follow
    position = 0
    while position < len(command):
        token = _TOKEN.match(command, position)
        if token is None:
            return None
        position = token.end()
        kind, text = token.lastgroup, token[token.lastgroup or 0]
        if kind in {"plain", "escaped", "single"}:
            word = (word or "") + text
            continue
        if kind == "double":
            word = (word or "") + _ESCAPE_IN_DOUBLE_QUOTES.sub(r"\1", text)
            continue
        if word is not None:
            words.append(word)
            word = None
        if kind == "blank" or (kind == "newline" and not words):
            continue
        if not _runs_only_its_words(words):
            return None
        segments.append(tuple(words))
        words = []
        unfinished = kind == "joint" and text != ";"
    if word is not None:
        words.append(word)
    if words:
        if not _runs_only_its_words(words):
            return None
        segments.append(tuple(words))
    elif unfinished:
        return None
    return tuple(segments) or None


def _legible(command: str) -> bool:
    # str.isprintable is False for NUL, CR, escapes, bidi and zero-width controls, lone surrogates and every
    # blank but the ASCII space: what a reader cannot see, or a locale may take for a separator.
    if not command.replace("\n", "").replace("\t", "").isprintable():
        return False
    # In some multi-byte locales the last byte of a character swallows a backslash that follows it.
    return command.isascii() or "\\" not in command


def _runs_only_its_words(words: list[str]) -> bool:
    if not words or not words[0]:
        return False
    name = words[0]
    # "=" would be an assignment, and bash takes a first word "%…" for a job to continue.
    if name in _RESERVED or "=" in name or name.startswith("%"):
        return False
    return name not in _EVALUATES_AGAIN or not any("$" in word or "`" in word for word in words)
