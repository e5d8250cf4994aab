"""Marks of the calls that changed an object, in its metadata: a repeated call finds that it was applied before.

The metadata entry has ``<16 hex digits><action>`` for each call, newest first, separated by commas. Every later change
by this package keeps it. Other programs may write any value: malformed parts are ignored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from langchain_daytona_ws._core.s3.attributes import kept

NAME = "langchain-daytona-ws-calls"
MAX_MARKS = 16
CREATED, REPLACED, EDITED = "c", "w", "e"
_MARK = re.compile(r"([0-9a-f]{16})(c|wb?c?|e[0-9]{1,6})", re.ASCII)
_MAX_LENGTH = MAX_MARKS * 32


@dataclass(frozen=True, slots=True)
class Mark:
    """A call: the digits of its key's hash, and its action.

    ``c``: created. ``w``: replaced, with ``b`` and ``c`` if the byte order mark and CRLF were kept. ``e``: edited, with
    a count.
    """

    call: str
    action: str

    @property
    def count(self) -> int:
        """The number of replacements of an edit."""
        return int(self.action[1:] or 0)

    @property
    def kept(self) -> list[str]:
        """The style that a write kept of the old content, with the names of `_guest.edit.style_to_keep`."""
        return [name for name in ("bom", "crlf") if self.action[:1] == REPLACED and name[0] in self.action]


def short(key: str) -> str:
    """Return the digits that represent a call's key in the metadata."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def marks_in(metadata: Mapping[str, str]) -> tuple[Mark, ...]:
    """Return the valid marks in an object's metadata, newest first."""
    value = metadata.get(NAME, "")
    if len(value) > _MAX_LENGTH:
        return ()
    found = [_MARK.fullmatch(part) for part in value.split(",")]
    return tuple(Mark(match[1], match[2]) for match in found if match)[:MAX_MARKS]


def mark_of(metadata: Mapping[str, str], call: str) -> Mark | None:
    """Return the mark of a call; None if it left no mark."""
    return next((mark for mark in marks_in(metadata) if mark.call == call), None)


def with_mark(metadata: Mapping[str, str], latest: Mark) -> dict[str, str]:
    """Return the metadata for the changed object: its file attributes, and the mark of the latest call."""
    marks = (latest, *(mark for mark in marks_in(metadata) if mark.call != latest.call))
    return {**kept(metadata), NAME: ",".join(mark.call + mark.action for mark in marks[:MAX_MARKS])}


def proves_not_applied(before: Mapping[str, str], now: Mapping[str, str], call: str) -> bool:
    """Return whether the metadata of two reads proves that a call was not applied between them.

    Later changes by this package keep the marks of earlier changes, and changes by other programs remove them. So if a
    mark of the first read is still present, a call without mark was not applied.
    """
    known, present = {mark.call for mark in marks_in(before)}, {mark.call for mark in marks_in(now)}
    return call not in present and not known.isdisjoint(present)
