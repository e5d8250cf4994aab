"""Alternative interpretations of a glob that matches no file. Pure; used by host and guest.

Models write ``app/[locale]/**`` for a directory of that name, ``*.ts,*.tsx`` for two globs, and
``src/**/*.py`` for a search that starts in ``src``. A reading is proposed only if it matches a file.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, Literal

    Kind = Literal["path", "brackets", "commas", "alternatives"]

PATH: Final = "path"
BRACKETS: Final = "brackets"
COMMAS: Final = "commas"
ALTERNATIVES: Final = "alternatives"
KINDS: Final = (PATH, BRACKETS, COMMAS, ALTERNATIVES)

_BRACE = r"\{[^{}]*\}"
_ALTERNATIVES = r"[@+]\(([^()/]*\|[^()/]*)\)"


def readings(pattern: str, path: str) -> list[tuple[Kind, str]]:
    """Return other readings of a glob, as ``(kind, pattern)``; ``path`` is the directory searched, "" for the root."""
    found = list(_rewritten(pattern))
    if path and pattern.startswith(path + "/") and len(pattern) > len(path) + 1:
        rest = pattern[len(path) + 1 :]
        found = [(PATH, rest), *found, *_rewritten(rest)]
    return found


def _rewritten(pattern: str) -> Iterator[tuple[Kind, str]]:
    import re  # takes 5 ms; most globs match a file

    if "[" in pattern:
        yield BRACKETS, re.sub(r"(\\.)|\[", lambda found: found[1] or "\\[", pattern)
    if "," in re.sub(_BRACE, "", pattern):
        # Commas within braces stay.
        parts = re.split(r",(?![^{}]*\})", pattern)
        yield COMMAS, "{" + ",".join(part.strip() for part in parts if part.strip()) + "}"
    if re.search(_ALTERNATIVES, pattern):
        yield (
            ALTERNATIVES,
            re.sub(_ALTERNATIVES, lambda found: "{" + found[1].replace("|", ",") + "}", pattern),
        )
