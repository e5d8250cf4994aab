"""The metadata of objects: file attributes, and a mark of each call that changed the object.

The attributes have the format of AWS's file services (S3 Files, Storage Gateway, FSx). ``file-permissions`` is the
octal ``st_mode``, such as ``0100755``; ``file-mtime`` is in nanoseconds, such as ``1764471600000000000ns``. If the
permissions are those of a symlink, the content of the object is the symlink's target.

A mark is ``<16 hex digits><action>``. If a repeated call finds its mark, the call was applied before. One metadata
entry has the marks of the latest 16 calls, newest first, separated by commas. Direct writes to S3 by this package keep
the entry. Other changes, such as a push of a synchronised workspace, remove it.

Other programs may write any value: malformed values are ignored.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass

PERMISSIONS, MTIME, OWNER, GROUP = "file-permissions", "file-mtime", "file-owner", "file-group"
NEW_FILE, NEW_DIRECTORY = "0100644", "0040755"
_OCTAL = re.compile(r"0{0,5}[0-7]{1,6}", re.ASCII)
_ID = re.compile(r"[0-9]{1,10}", re.ASCII)

MARKS_ENTRY = "langchain-daytona-ws-calls"
MAX_MARKS = 16
CREATED, REPLACED, EDITED = "c", "w", "e"
_MARK = re.compile(r"([0-9a-f]{16})(c|w(b?c?)|e([0-9]{1,6}))", re.ASCII)
_MAX_LENGTH = MAX_MARKS * 32
_STYLES = ("bom", "crlf")


def is_symlink(metadata: Mapping[str, str]) -> bool:
    return stat.S_ISLNK(_mode(metadata))


def is_executable(metadata: Mapping[str, str]) -> bool:
    """Return whether the owner of a file may execute it."""
    return bool(_mode(metadata) & stat.S_IXUSR)


def executable(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata with an execute permission for each read permission (owner, group, others)."""
    mode = _mode(metadata) or int(NEW_FILE, 8)
    return {**metadata, PERMISSIONS: f"0{mode | (mode & 0o444) >> 2:o}"}


def kept_attributes(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that a regular file keeps if its content is replaced."""
    is_regular = stat.S_IFMT(_mode(metadata)) in (0, stat.S_IFREG)
    result = {name: metadata[name] for name in (OWNER, GROUP) if _ID.fullmatch(metadata.get(name, ""))}
    if is_regular and _OCTAL.fullmatch(metadata.get(PERMISSIONS, "")):
        result[PERMISSIONS] = metadata[PERMISSIONS]
    return result


def stamped(metadata: Mapping[str, str], now_s: float) -> dict[str, str]:
    """Return the metadata with the modification time set to now. If permissions are missing, add those of a new file.

    The time must change: git does not notice a change that keeps a file's size and time.
    """
    return {PERMISSIONS: NEW_FILE, **metadata, MTIME: f"{round(now_s * 1e6)}000ns"}


def _mode(metadata: Mapping[str, str]) -> int:
    text = metadata.get(PERMISSIONS, "")
    return int(text, 8) if _OCTAL.fullmatch(text) else 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A call that changed an object.

    Attributes:
        call: The first 16 hex digits of the hash of the call's idempotency key.
        action: ``c``: created. ``w``: replaced; ``b`` follows if the byte order mark was kept, ``c`` if CRLF was kept.
            ``e``: edited; the number of replacements follows.
        kept: Styles of the old content that a write kept: ``bom``, ``crlf``.
        count: The number of replacements of an edit.
    """

    call: str
    action: str
    kept: tuple[str, ...] = ()
    count: int = 0


def new_mark(call_key: str, action: str) -> Mark:
    mark = _mark(_short_hash(call_key) + action)
    if mark is None:
        raise ValueError(f"unknown action {action!r}")
    return mark


def mark_of(metadata: Mapping[str, str], call_key: str) -> Mark | None:
    """Return the mark of a call; None if the call left no mark."""
    call = _short_hash(call_key)
    return next((mark for mark in marks_in(metadata) if mark.call == call), None)


def with_mark(metadata: Mapping[str, str], latest: Mark) -> dict[str, str]:
    """Return the metadata for the changed object: the file attributes to keep, and the marks with the latest first."""
    marks = (latest, *(mark for mark in marks_in(metadata) if mark.call != latest.call))
    return {
        **kept_attributes(metadata),
        MARKS_ENTRY: ",".join(mark.call + mark.action for mark in marks[:MAX_MARKS]),
    }


def proves_not_applied(before: Mapping[str, str], now: Mapping[str, str], call_key: str) -> bool:
    """Return True if the metadata of two reads proves that a call was not applied between them.

    If the second read has a mark of the first read, but no mark of the call, the call was not applied: a direct write
    by this package adds its mark to the earlier marks, and every other write removes all marks. Only a restored old
    version of the object gives a wrong proof.
    """
    known, present = {mark.call for mark in marks_in(before)}, {mark.call for mark in marks_in(now)}
    return _short_hash(call_key) not in present and not known.isdisjoint(present)


def _short_hash(call_key: str) -> str:
    return hashlib.sha256(call_key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def marks_in(metadata: Mapping[str, str]) -> tuple[Mark, ...]:
    """Return the valid marks in an object's metadata, newest first; none if the entry is too long."""
    value = metadata.get(MARKS_ENTRY, "")
    if len(value) > _MAX_LENGTH:
        return ()
    return tuple(mark for mark in map(_mark, value.split(",")) if mark)[:MAX_MARKS]


def _mark(text: str) -> Mark | None:
    found = _MARK.fullmatch(text)
    if found is None:
        return None
    call, action, style, count = found.groups()
    return Mark(call, action, tuple(name for name in _STYLES if name[0] in (style or "")), int(count or 0))
