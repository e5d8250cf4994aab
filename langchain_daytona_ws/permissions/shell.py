"""Split a command into literal simple commands, to compare them with remembered prefixes.

This is not a shell parser. It supports only commands that bash runs with exactly the written words. For all other
commands it returns None ("unsure").
"""

from __future__ import annotations

import functools
import re

Words = tuple[str, ...]


# One alternative for each kind of token. Any other character (``$ ` & < > ( ) { } [ ] * ? ~ ! ^ #``, other control
# characters, non-ASCII characters outside quotes) makes the whole command "unsure". A line break or tab in quotes also
# makes it "unsure", because a reader can confuse it with an unquoted line break or tab.
@functools.cache
def _token() -> re.Pattern[str]:
    return re.compile(
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


_ESCAPE_IN_DOUBLE_QUOTES = r'\\([$`"\\])'


# Reserved words at the start of a command. They are refused even in quotes, because the check gets words without
# quotes.
_RESERVED = frozenset({
    "if", "then", "elif", "else", "fi", "for", "in", "until", "while", "do", "done", "case", "esac", "coproc",
    "select", "function", "time", "{", "}", "!", "[[", "]]",
})  # fmt: skip

# Builtins that evaluate some of their arguments: printf -v 'a[$(rm x)]' runs rm, although the word is quoted.
_EVALUATES_AGAIN = frozenset({
    "[", "bind", "builtin", "command", "compgen", "complete", "compopt", "declare", "enable", "eval", "exec",
    "export", "getopts", "hash", "let", "local", "mapfile", "printf", "read", "readarray", "readonly", "set", "shift",
    "test", "trap", "typeset", "ulimit", "unset", "wait",
})  # fmt: skip


def simple_commands(command: str) -> tuple[Words, ...] | None:
    """Return the argv of each simple command in ``command``, in written order.

    The commands may be joined by ``;``, ``&&``, ``||``, ``|`` or a line break. They may contain plain words, quotes and
    backslashes, but nothing that bash expands.

    Args:
        command: A command for non-interactive bash.

    Returns:
        One tuple of words for each simple command. None if ``command`` contains anything else, a syntax error, or no
        command.
    """
    if not _is_readable(command):
        return None
    segments: list[Words] = []
    words: list[str] = []
    word: str | None = None  # None between words; "" is a word (two quotes)
    unfinished = False  # True after && || |: a command must follow
    position, pattern = 0, _token()
    while position < len(command):
        token = pattern.match(command, position)
        if token is None:
            return None
        position = token.end()
        kind, text = token.lastgroup, token[token.lastgroup or 0]
        if kind in {"plain", "escaped", "single"}:
            word = (word or "") + text
            continue
        if kind == "double":
            word = (word or "") + re.sub(_ESCAPE_IN_DOUBLE_QUOTES, r"\1", text)
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


def _is_readable(command: str) -> bool:
    # str.isprintable is False for control characters, bidi and zero-width characters, lone surrogates and every space
    # except the ASCII space. Readers can't see these, or a locale may treat them as separators.
    if not command.replace("\n", "").replace("\t", "").isprintable():
        return False
    # In some multi-byte locales a backslash is parsed as part of the preceding non-ASCII character.
    return command.isascii() or "\\" not in command


def _runs_only_its_words(words: list[str]) -> bool:
    if not words or not words[0]:
        return False
    name = words[0]
    # "=" makes an assignment; a first word "%…" continues a job.
    if name in _RESERVED or "=" in name or name.startswith("%"):
        return False
    return name not in _EVALUATES_AGAIN or not any("$" in word or "`" in word for word in words)
