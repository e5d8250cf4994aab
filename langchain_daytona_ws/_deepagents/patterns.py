"""Convert the search patterns of Deep Agents to those of this package. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from langchain_daytona_ws._guest.match import Glob

_SPECIAL = frozenset("\\.+*?()|[]{}^$")


def literal_regex(text: str) -> str:
    """Return a regular expression that matches exactly this text in ripgrep, grep -P, grep -E and RE2."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def file_glob(pattern: str) -> str:
    """Return the equivalent glob of this package: a pattern without a slash matches names at any depth."""
    return pattern.lstrip("/") if "/" in pattern else f"**/{pattern}"


def anchor_of(pattern: str) -> tuple[str, str]:
    """Split an absolute pattern into its literal directory and the pattern below it; ``("", pattern)`` for others."""
    literal = re.split(r"[*?\[{\\]", pattern, maxsplit=1)[0]
    directory = literal.rpartition("/")[0]
    if not directory.startswith("/"):
        return "", pattern
    return directory, pattern[len(directory) :]


def hidden_name_filter(pattern: str) -> Callable[[str], bool]:
    """Return a predicate that rejects paths with a hidden name, unless the pattern spells out the dot.

    For a pattern without a slash only the file's own name is checked: ``*.yml`` finds ``.github/ci.yml``.

    Raises:
        GlobError: The pattern is invalid.
    """
    dotted = [
        segment
        for segments in Glob(file_glob(pattern)).alternatives
        for segment in segments
        if segment is not None and segment.tokens[:1] == [("c", ".")]
    ]
    only_name = "/" not in pattern

    def is_visible(path: str) -> bool:
        names = path.split("/")[-1:] if only_name else path.split("/")
        return all(
            not name.startswith(".") or any(segment.matches(name) for segment in dotted) for name in names
        )

    return is_visible
