"""Deep Agents' patterns, turned into those of this package. Pure."""

from __future__ import annotations

from collections.abc import Callable

from langchain_daytona_ws._guest.match import Glob

_SPECIAL = frozenset("\\.+*?()|[]{}^$")


def literal(text: str) -> str:
    """Return a regular expression for exactly this text: for ripgrep, grep -P, grep -E and RE2 alike."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def files_pattern(pattern: str) -> str:
    """Return a glob for the same files: without a slash, names at any depth; with one, from the directory searched."""
    return pattern.lstrip("/") if "/" in pattern else f"**/{pattern}"


def shows(pattern: str) -> Callable[[str], bool]:
    """Return what says whether a path found is one that was meant: hidden names must be spelled out.

    Of a pattern without a slash only the file's own name counts: ``*.yml`` finds ``.github/ci.yml``.

    Raises:
        GlobError: The pattern can't be used.
    """
    dotted = [
        segment
        for segments in Glob(files_pattern(pattern)).alternatives
        for segment in segments
        if segment is not None and segment.tokens[:1] == [("c", ".")]
    ]
    only_name = "/" not in pattern

    def shown(path: str) -> bool:
        names = path.split("/")[-1:] if only_name else path.split("/")
        return all(
            not name.startswith(".") or any(segment.matches(name) for segment in dotted) for name in names
        )

    return shown
