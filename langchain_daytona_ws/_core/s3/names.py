"""Conversion between paths and keys, and the order of keys. Pure.

Python compares strings by code point. This is the order of their UTF-8 bytes, and the order of S3's listings.
"""

from __future__ import annotations

from langchain_daytona_ws._core.paths import NAME_BYTES
from langchain_daytona_ws._guest.walk import RefusedError

ROOT = "."
# Sorts after nearly every name: "~" is the last printable ASCII character. Names after it cost one more request, and
# a store might refuse a character beyond ASCII.
LAST = "~~~"


def key_of(path: str) -> str:
    """Check a requested path and return its key, ``""`` for the root.

    Raises:
        RefusedError: ``bad_path`` or ``outside``.

    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/"):
        raise RefusedError("bad_path")
    if ".." in parts:
        raise RefusedError("outside")
    if any(is_hidden(part) for part in parts):
        raise RefusedError("bad_path")
    return "/".join(parts)


def below(key: str) -> str:
    """Return the prefix of the keys in the directory ``key``."""
    return key + "/" if key else ""


def parent_of(key: str) -> str:
    return key.rpartition("/")[0]


def ancestors(key: str) -> list[str]:
    """Return the directories above a key, outermost first, without the root."""
    parts = key.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def is_hidden(part: str) -> bool:
    """Return whether a part of a key cannot be a file name, so that a mount hides the key."""
    if part in ("", ".", "..") or "\0" in part:
        return True
    try:
        return len(part.encode()) > NAME_BYTES
    except UnicodeEncodeError:
        return True
