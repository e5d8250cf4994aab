"""The calls that changed an object, kept in its metadata: whoever makes a call again can tell that it was made.

The value is that of one metadata entry: ``<16 hex digits><what>`` of each call, newest first, with commas. It is
carried along by every later change of ours. Others may write anything there: what is malformed is ignored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME = "langchain-daytona-ws-calls"
MOST = 16
CREATED, REPLACED, EDITED = "c", "w", "e"
_MARK = re.compile(r"([0-9a-f]{16})(c|wb?c?|e[0-9]{1,6})", re.ASCII)
_LONGEST = MOST * 32


@dataclass(frozen=True, slots=True)
class Mark:
    """One call: the digits that its key comes down to, and what it did.

    ``c`` created; ``w`` replaced, with ``b`` and ``c`` for the byte order mark and the CRLF that it kept; ``e`` edited,
    with a count.
    """

    call: str
    what: str

    @property
    def count(self) -> int:
        """How many replacements an edit made."""
        return int(self.what[1:] or 0)

    @property
    def kept(self) -> list[str]:
        """What a write kept of the style of what it replaced, as `_guest.edit.style_to_keep` names it."""
        return [name for name in ("bom", "crlf") if self.what[:1] == REPLACED and name[0] in self.what]


def short(key: str) -> str:
    """Return what stands for a call's key in the metadata."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def marks_in(metadata: Mapping[str, str]) -> tuple[Mark, ...]:
    value = metadata.get(NAME, "")
    if len(value) > _LONGEST:
        return ()
    found = [_MARK.fullmatch(one) for one in value.split(",")]
    return tuple(Mark(one[1], one[2]) for one in found if one)[:MOST]


def mark_of(metadata: Mapping[str, str], call: str) -> Mark | None:
    """Return the mark that a call left, if it did."""
    return next((mark for mark in marks_in(metadata) if mark.call == call), None)


def with_mark(metadata: Mapping[str, str], latest: Mark) -> dict[str, str]:
    """Return the metadata of an object that a call is about to change."""
    marks = (latest, *(mark for mark in marks_in(metadata) if mark.call != latest.call))
    return {NAME: ",".join(mark.call + mark.what for mark in marks[:MOST])}


def excludes(before: Mapping[str, str], now: Mapping[str, str], call: str) -> bool:
    """Tell whether the metadata proves that a call was not made between two looks at an object.

    A later change of ours carries the marks of earlier ones along, and any other change wipes them out: so where one
    that was there at the first look is there still, a call that left none was not made.
    """
    known, there = {mark.call for mark in marks_in(before)}, {mark.call for mark in marks_in(now)}
    return call not in there and not known.isdisjoint(there)
