"""Count and name the files that a result leaves out, by reason. Pure; used by host and guest."""

from __future__ import annotations

from langchain_daytona_ws._guest.text import MARKED_UTF16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

BINARY: Final = "binary"  # not searched
BINARY_MATCH: Final = "binary_match"  # matches, and its lines are not shown
UTF16: Final = "utf16"  # not searched
UNREADABLE: Final = "unreadable"  # not searched: no permission, or a failing disk
REASONS: Final = (BINARY_MATCH, BINARY, UTF16, UNREADABLE)

NAMED = 20  # paths of each reason
# A larger binary file is not searched: a directory of images would exceed the time of a search.
SEARCHED_BINARY_BYTES = 64 << 10


def is_too_binary(kind: str, size_bytes: int) -> bool:
    """Return whether a file of this kind, see `text.binary_kind`, is not searched because of its size."""
    return kind not in ("", MARKED_UTF16) and size_bytes > SEARCHED_BINARY_BYTES


def omitted(paths: Mapping[str, Iterable[str]]) -> dict[str, list[object]]:
    """Return ``{reason: [count, the first paths]}`` in the form of answers, without empty reasons."""
    found = {reason: sorted(paths.get(reason, ())) for reason in REASONS}
    return {reason: [len(names), names[:NAMED]] for reason, names in found.items() if names}
