"""Alternative interpretations of a glob that matches no file. Pure; used by host and guest.

Models write ``app/[locale]/**`` for a directory of that name, ``*.ts,*.tsx`` for two globs, and
``src/**/*.py`` for a search that starts in ``src``. A reading is proposed only if it matches a file.
"""

from __future__ import annotations

import re

from langchain_daytona_ws._guest.match import GlobError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Callable, Final, Literal

    from langchain_daytona_ws._guest.rows import Filter

    Kind = Literal["path", "brackets", "commas", "alternatives"]

PATH: Final = "path"
BRACKETS: Final = "brackets"
COMMAS: Final = "commas"
ALTERNATIVES: Final = "alternatives"
KINDS: Final = (PATH, BRACKETS, COMMAS, ALTERNATIVES)

_BRACE = re.compile(r"\{[^{}]*\}")
_ALTERNATIVES = re.compile(r"[@+]\(([^()/]*\|[^()/]*)\)")


def readings(pattern: str, path: str) -> list[tuple[Kind, str]]:
    """Return other readings of a glob, as ``(kind, pattern)``; ``path`` is the directory searched, "" for the root."""
    found = list(_rewritten(pattern))
    if path and pattern.startswith(path + "/") and len(pattern) > len(path) + 1:
        rest = pattern[len(path) + 1 :]
        found = [(PATH, rest), *found, *_rewritten(rest)]
    return found


def _rewritten(pattern: str) -> Iterator[tuple[Kind, str]]:
    if "[" in pattern:
        yield BRACKETS, re.sub(r"(\\.)|\[", lambda found: found[1] or "\\[", pattern)
    if "," in _BRACE.sub("", pattern):
        # Commas within braces stay.
        parts = re.split(r",(?![^{}]*\})", pattern)
        yield COMMAS, "{" + ",".join(part.strip() for part in parts if part.strip()) + "}"
    if _ALTERNATIVES.search(pattern):
        yield ALTERNATIVES, _ALTERNATIVES.sub(lambda found: "{" + found[1].replace("|", ",") + "}", pattern)


class Doubts:
    """Finds a file that the glob does not match, but another reading of the glob does.

    Args:
        pattern: The glob.
        path: The directory searched, "" for the root.
        compiled: Returns the filter of a pattern.
    """

    def __init__(self, pattern: str, path: str, compiled: Callable[[str], Filter]) -> None:
        self._answer: tuple[Kind, str, str] | None = None
        self._open: list[tuple[Kind, str, Filter]] = []
        for kind, reading in [] if pattern.startswith("!") else readings(pattern, path):
            try:
                self._open.append((kind, reading, compiled(reading)))
            except GlobError:  # this reading is not a valid glob
                continue

    def found(self, base: str, *, matched: bool) -> tuple[Kind, str, str] | None:
        """Return kind, pattern and a path that it matches, or None.

        Args:
            base: Prefix of the returned path.
            matched: Whether the glob has matched files. Then only a reading of brackets is returned: brackets may have
                matched other files than intended.
        """
        if self._answer is None or (matched and self._answer[0] != BRACKETS):
            return None
        kind, pattern, path = self._answer
        return kind, pattern, base + path

    def see(self, path: str) -> None:
        """Try the readings on a file that the glob does not match; ``path`` is relative to the directory searched."""
        if self._answer is None:
            for kind, reading, glob in self._open:
                if glob.matches(path):
                    self._answer = kind, reading, path
                    return
