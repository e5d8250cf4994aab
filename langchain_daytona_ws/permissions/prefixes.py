"""A prefix of a command: which one to offer for "always", and what a remembered one covers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase

from langchain_daytona_ws.permissions import known_tools
from langchain_daytona_ws.permissions.shell import Words, simple_commands

# More commands in one another are nobody's command.
_MOST_RUNNERS = 3
# A command may be a megabyte long, and looking through its words must not hold up an event loop.
_MOST_WORDS = 2000
# As Debian names the builds of one program: vim.tiny, nc.openbsd.
_BUILD = re.compile(r"\.(?:athena|basic|gtk3?|nox|openbsd|tiny|traditional)$")
# Of python3.11, node20, clang-15, and python3.13t: Python without its lock.
_VERSION = re.compile(r"(?<=[A-Za-z+])[-.]?[0-9][0-9.]*(?:td?|d|m|-dbg)?$")
_MOST_CHARS = 100


def prefix_words(prefix: str) -> Words | None:
    """Return the words of a command prefix, or None when it is not exactly one literal simple command."""
    segments = simple_commands(prefix)
    return segments[0] if segments is not None and len(segments) == 1 else None


def starts_with(words: Words, prefix: Words) -> bool:
    """Say whether ``words`` begins with the whole words of ``prefix`` (``git status`` is no ``git stat``)."""
    return bool(prefix) and words[: len(prefix)] == prefix


def covers(prefix: Words, words: Words) -> bool:
    """Say whether a remembered prefix lets a simple command run without asking.

    It begins with the prefix, and nothing after that is known to make its tool run something else
    (``make test --eval=…`` under ``make test``): see `diverted` for what is not known.
    """
    return starts_with(words, prefix) and not diverted(words, len(prefix))


def suggested_prefixes(command: str) -> tuple[str, ...]:
    """Return one prefix per simple command of ``command``, which together would cover it.

    Returns:
        Distinct prefixes in the order written; empty when a segment is not a literal simple command, or is
        one for which a prefix would allow anything at all (``sudo``, ``npx``, ``docker run``, ``git -c …``).
    """
    found: dict[str, None] = {}
    for words in simple_commands(command) or ():
        prefix = _suggested(words)
        if prefix is None:
            return ()
        found[shlex.join(prefix)] = None
    # A suggestion is worth showing only if it would be accepted back as it stands.
    return tuple(found) if all(prefix_words(prefix) for prefix in found) else ()


def suggested_prefix(command: str) -> str | None:
    """Return the prefix to offer for a command of one simple command; None when there is none to offer."""
    prefixes = suggested_prefixes(command)
    return prefixes[0] if len(prefixes) == 1 else None


def _suggested(words: Words) -> Words | None:
    """Return the prefix to offer for a simple command; None where every one would mean too much."""
    levels = _levels(words)
    if levels is None:
        return None
    start = levels[-1]
    inner = _inner_prefix(words[start:])
    # Not even within the prefix: "cargo +nightly", "make CC=x".
    if inner is None or diverted(words, 0):
        return None
    return words[:start] + inner


def diverted(words: Words, after: int) -> bool:
    """Say whether a word beyond the first ``after`` makes a known tool run something else.

    Words within the remembered prefix are what the user agreed to, and are not looked at. This is a table, which
    errs on the side of asking: it takes any word for an option, wherever it stands, and any beginning of
    a long option for the whole. It does not know every tool, nor every option of those that it knows; and it
    does not judge what a tool does by design: the code in the files that it is there to run (a Makefile,
    tests, a package's scripts), its own settings files, the arguments of a script, or writing over files.

    Args:
        words: A simple command.
        after: How many of its words the remembered prefix has.
    """
    levels = _levels(words)
    if levels is None:
        return True
    # "uv run pytest -p x": what stands before pytest is uv's, and the rest pytest's.
    for start, end in zip(levels, [*levels[1:], len(words)], strict=True):
        tool = _tool(words[start : start + 3])
        later = words[max(after, start + 1) : end]
        # An option in the verb's place may mean anything, and hides the verb.
        if tool[0] in known_tools.WITH_VERBS and after <= start + 1 and _is_option(later[:1]):
            return True
        patterns = [pattern for size in (1, 2) for pattern in _patterns(tool[:size])]
        if patterns and len(later) > _MOST_WORDS:
            return True
        if any(_is(word, pattern) for word in later for pattern in patterns):
            return True
    return False


def _is_option(first: Words) -> bool:
    return bool(first) and first[0].startswith("-") and first[0] not in known_tools.HARMLESS_FIRST


def _patterns(tool: Words) -> Sequence[str]:
    same = (known_tools.SAME.get(tool[0], tool[0]), *tool[1:])
    return known_tools.DIVERTING.get(same, "").split()


def _is(word: str, pattern: str) -> bool:
    """Say whether a word is what a pattern of `known_tools.DIVERTING` means.

    ``--file``: that option, shortened or with a value. ``-f``: the letter in any group of short options.
    ``-exec``: with one dash or two, with or without a value. ``=``: an assignment. Others: as in `fnmatch`.
    """
    if "*" in pattern or "[" in pattern:
        return fnmatchcase(word, pattern)
    if pattern == "=":
        return "=" in word and not word.startswith("-")
    if not pattern.startswith("-"):
        return word == pattern
    option = word.partition("=")[0]
    if pattern.startswith("--"):
        return len(option) > 2 and pattern.startswith(option)
    if len(pattern) == 2:
        return word.startswith("-") and not word.startswith("--") and pattern[1] in word
    return option in {pattern, f"-{pattern}"}


def _levels(words: Words) -> list[int] | None:
    """Return where each command in the command begins (``uv run`` → its own); None for too many."""
    levels = [0]
    while _tool(words[levels[-1] : levels[-1] + 2]) in known_tools.RUNNERS:
        start = levels[-1] + 2
        if start >= len(words) or words[start].startswith("-"):
            break
        if len(levels) > _MOST_RUNNERS:
            return None
        levels.append(start)
    return levels


def _tool(words: Words) -> Words:
    """Return the words with the program's plain name: of a path its last part, of ``pip3.11`` ``pip``."""
    name = words[0].rsplit("/", 1)[-1]
    if len(name) <= _MOST_CHARS:
        name = _BUILD.sub("", name)
        name = name if name in known_tools.KNOWN else _VERSION.sub("", name)
    return (name, *words[1:])


def _inner_prefix(words: Words) -> Words | None:
    tool = _tool(words[:3])
    name = tool[0]
    # The dynamic loader runs the program that it is given.
    if name in known_tools.RUNS_ANYTHING or name.startswith(("ld-linux", "ld-musl", "ld.so")):
        return None
    if (
        tool[:2] in known_tools.VERBS_RUN_ANYTHING
        or tool in known_tools.VERBS_RUN_ANYTHING
        or tool[:2] in known_tools.RUNNERS
    ):
        return None
    if name in known_tools.RUN_PROGRAMS and any(
        _tool((word,))[0] in known_tools.PROGRAMS for word in words[1:3] if word
    ):
        return None
    if tool[:2] in known_tools.THREE_WORDS_AFTER or name in known_tools.THREE_WORDS:
        return _whole(words, 3)
    if name in known_tools.INTERPRETERS:
        # "python /dev/stdin" would be any program, too.
        return None if words[1:2] and words[1].startswith(("/dev/", "/proc/")) else _whole(words, 2)
    return _whole(words, 2) if name in known_tools.TWO_WORDS else words[:1]


def _whole(words: Words, size: int) -> Words | None:
    """Return the first words; None if some are missing or an option stands for a verb (``git -C x``)."""
    prefix = words[:size]
    return None if len(prefix) < size or any(word.startswith("-") for word in prefix[1:]) else prefix
