"""Command prefixes: suggest a prefix for ``allow_always``, and decide whether a remembered prefix covers a command."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatchcase

from langchain_daytona_ws.permissions import known_tools
from langchain_daytona_ws.permissions.shell import Words, simple_commands

# Maximum number of runners before a command: "uv run python -m pytest" has the runners "uv run" and "python -m".
_MAX_RUNNERS = 3
# A command may be a megabyte long, and a scan of all its words would block the event loop.
_MAX_WORDS = 2000
# Debian's suffixes for variants of one program: vim.tiny, nc.openbsd.
_VARIANT = r"\.(?:athena|basic|gtk3?|nox|openbsd|tiny|traditional)$"
# Version suffixes: python3.11, node20, clang-15, python3.13t (free-threaded Python).
_VERSION = r"(?<=[A-Za-z+])[-.]?[0-9][0-9.]*(?:td?|d|m|-dbg)?$"
_MAX_NAME_CHARS = 100


def prefix_words(prefix: str) -> Words | None:
    """Return the words of a command prefix; None if it is not exactly one literal simple command."""
    segments = simple_commands(prefix)
    return segments[0] if segments is not None and len(segments) == 1 else None


def starts_with(words: Words, prefix: Words) -> bool:
    """Return whether ``words`` starts with all words of ``prefix``; ``git stat`` is not a prefix of ``git status``."""
    return bool(prefix) and words[: len(prefix)] == prefix


def covers(prefix: Words, words: Words) -> bool:
    """Return whether a remembered prefix allows a simple command.

    The command must start with the prefix. No word after the prefix may be known to make the tool run something else:
    ``make test`` does not cover ``make test --eval=…``. `diverted` describes the limits of this check.
    """
    return starts_with(words, prefix) and not diverted(words, len(prefix))


def suggested_prefixes(command: str) -> tuple[str, ...]:
    """Return one prefix for each simple command in ``command``. Together the prefixes cover ``command``.

    Returns:
        Distinct prefixes in written order. Empty if a part of ``command`` is not a literal simple command, or if every
        prefix that covers the part would allow too much: ``git``, ``sudo``, ``npx``, ``docker run``, ``git -c …``.
    """
    found: dict[str, None] = {}
    for words in simple_commands(command) or ():
        prefix = _suggested(words)
        if prefix is None:
            return ()
        found[shlex.join(prefix)] = None
    return tuple(found) if all(prefix_words(prefix) for prefix in found) else ()


def _suggested(words: Words) -> Words | None:
    """Return the suggested prefix of a simple command; None if every prefix that covers it would allow too much."""
    levels = _levels(words)
    if levels is None:
        return None
    start = levels[-1]
    inner = _inner_prefix(words[start:])
    # No word of the command may make the tool run something else: "cargo +nightly", "make CC=x".
    if inner is None or diverted(words, 0):
        return None
    return words[:start] + inner


def diverted(words: Words, after: int) -> bool:
    """Return whether a word after the first ``after`` words makes a known tool run something else.

    The check uses the tables of `known_tools`. In doubt the result is True: a word counts as an option at any position,
    and an abbreviation counts as the full long option. The check has two limits. The tables do not contain every tool
    and every option. The normal work of a tool is allowed: it may run code from files (a Makefile, tests, a package's
    scripts), read settings files, pass arguments to a script, and overwrite files.

    Args:
        words: A simple command.
        after: Number of words in the remembered prefix. They are approved, and are not checked.
    """
    levels = _levels(words)
    if levels is None:
        return True
    # "uv run pytest -p x": the words before pytest belong to uv, the rest to pytest.
    for start, end in zip(levels, [*levels[1:], len(words)], strict=True):
        tool = _tool(words[start : start + 3])
        later = words[max(after, start + 1) : end]
        # An option in place of the subcommand may have any effect, and hides the subcommand.
        if tool[0] in known_tools.WITH_VERBS and after <= start + 1 and _is_option(later[:1]):
            return True
        patterns = [pattern for size in (1, 2) for pattern in _patterns(tool[:size])]
        if patterns and len(later) > _MAX_WORDS:
            return True
        if any(_matches(word, pattern) for word in later for pattern in patterns):
            return True
    return False


def _is_option(first: Words) -> bool:
    return bool(first) and first[0].startswith("-") and first[0] not in known_tools.HARMLESS_FIRST


def _patterns(tool: Words) -> Words:
    canonical = (known_tools.ALIASES.get(tool[0], tool[0]), *tool[1:])
    return known_tools.DIVERTING.get(canonical, ())


def _matches(word: str, pattern: str) -> bool:
    """Return whether a word matches a pattern of `known_tools.DIVERTING`.

    ``--file`` matches this option, also if it is abbreviated or has a value. ``-f`` matches the letter in any group of
    short options. ``-exec`` matches one or two dashes, with or without a value. ``=`` matches an assignment. Any other
    pattern matches as in `fnmatch`.
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
    """Return the start of the command and of each nested command: ``[0, 2]`` for ``uv run pytest``.

    Return None if there are too many nested commands.
    """
    levels = [0]
    while _tool(words[levels[-1] : levels[-1] + 2]) in known_tools.RUNNERS:
        start = levels[-1] + 2
        if start >= len(words) or words[start].startswith("-"):
            break
        if len(levels) > _MAX_RUNNERS:
            return None
        levels.append(start)
    return levels


def _tool(words: Words) -> Words:
    """Return the words with the plain name of the program: without directory and version (``pip3.11`` → ``pip``)."""
    name = words[0].rsplit("/", 1)[-1]
    if len(name) <= _MAX_NAME_CHARS:
        name = re.sub(_VARIANT, "", name)
        name = name if name in known_tools.KNOWN else re.sub(_VERSION, "", name)
    return (name, *words[1:])


def _inner_prefix(words: Words) -> Words | None:
    tool = _tool(words[:3])
    name = tool[0]
    # The dynamic loader runs the program in its arguments.
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
        return _first_words(words, 3)
    if name in known_tools.INTERPRETERS:
        # "python /dev/stdin" could run any program.
        return None if words[1:2] and words[1].startswith(("/dev/", "/proc/")) else _first_words(words, 2)
    return _first_words(words, 2) if name in known_tools.TWO_WORDS else words[:1]


def _first_words(words: Words, size: int) -> Words | None:
    """Return the first ``size`` words; None if there are fewer, or an option replaces the subcommand (``git -C x``)."""
    prefix = words[:size]
    return None if len(prefix) < size or any(word.startswith("-") for word in prefix[1:]) else prefix
