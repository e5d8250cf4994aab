"""File attributes in the metadata of objects, in the format of AWS's file services (S3 Files, Storage Gateway, FSx).

``file-permissions`` is the octal ``st_mode``, such as ``0100755``; ``file-mtime`` is in nanoseconds, such as
``1764471600000000000ns``. An object with the permissions of a symlink has the target as its content. Other programs
may write any value: malformed values are ignored.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping

PERMISSIONS, MTIME, OWNER, GROUP = "file-permissions", "file-mtime", "file-owner", "file-group"
NEW_FILE, NEW_DIRECTORY = "0100644", "0040755"
_OCTAL = re.compile(r"0{0,5}[0-7]{1,6}", re.ASCII)
_ID = re.compile(r"[0-9]{1,10}", re.ASCII)


def is_symlink(metadata: Mapping[str, str]) -> bool:
    """Return whether an object is a symlink, with the target as its content."""
    return stat.S_ISLNK(_mode(metadata))


def is_executable(metadata: Mapping[str, str]) -> bool:
    """Return whether the owner of a file may execute it."""
    return bool(_mode(metadata) & stat.S_IXUSR)


def executable(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata with the permission to execute for every class that has the permission to read."""
    mode = _mode(metadata) or int(NEW_FILE, 8)
    return {**metadata, PERMISSIONS: f"0{mode | (mode & 0o444) >> 2:o}"}


def kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that a regular file keeps if its content is replaced."""
    is_regular = stat.S_IFMT(_mode(metadata)) in (0, stat.S_IFREG)
    result = {name: metadata[name] for name in (OWNER, GROUP) if _ID.fullmatch(metadata.get(name, ""))}
    if is_regular and _OCTAL.fullmatch(metadata.get(PERMISSIONS, "")):
        result[PERMISSIONS] = metadata[PERMISSIONS]
    return result


def stamped(metadata: Mapping[str, str], now_s: float) -> dict[str, str]:
    """Return the metadata of an object that is written now, with the permissions of a new file if it has none.

    A new time is needed: git takes a changed file of the same size and time for unchanged.
    """
    return {PERMISSIONS: NEW_FILE, **metadata, MTIME: f"{round(now_s * 1e6)}000ns"}


def _mode(metadata: Mapping[str, str]) -> int:
    text = metadata.get(PERMISSIONS, "")
    return int(text, 8) if _OCTAL.fullmatch(text) else 0
