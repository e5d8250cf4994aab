"""Count and name the files that a result leaves out, by reason. Pure; used by host and guest."""

from __future__ import annotations

from langchain_daytona_ws._guest.text import MARKED_UTF16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

BINARY: Final = "binary"  # a binary file that was not searched
BINARY_MATCH: Final = "binary_match"  # a binary file that matches; its lines are not shown
UTF16: Final = "utf16"  # a file in UTF-16 that was not searched
UNREADABLE: Final = "unreadable"  # a file or directory without permission, or on a failing disk
REASONS: Final = (BINARY_MATCH, BINARY, UTF16, UNREADABLE)

NAMED = 20  # maximum number of paths that are named for each reason
# Larger binary files are not searched: a directory of images would take more time than a search has.
SEARCHED_BINARY_BYTES = 64 << 10


def is_large_binary(kind: str, size_bytes: int) -> bool:
    """Return whether a file is binary and too large to be searched; ``kind`` is the result of `text.binary_kind`."""
    return kind not in ("", MARKED_UTF16) and size_bytes > SEARCHED_BINARY_BYTES


def omitted(paths: Mapping[str, Iterable[str]]) -> dict[str, list[object]]:
    """Return ``{reason: [count, the first paths]}`` in the form of answers, without empty reasons."""
    found = {reason: sorted(paths.get(reason, ())) for reason in REASONS}
    return {reason: [len(names), names[:NAMED]] for reason, names in found.items() if names}
