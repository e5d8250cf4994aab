"""Keys as paths: which of them a mount shows, and where in the order of keys they stand. Pure.

Python compares strings by code point, which is the order of their UTF-8 bytes and so of S3's listings.
"""

from __future__ import annotations

from langchain_daytona_ws._core.paths import NAME_BYTES
from langchain_daytona_ws._guest.walk import RefusedError

ROOT = "."
# Behind nearly every name: "~" is the last of the printable ASCII characters. A name behind it is only read
# once more; and nothing is put into a request that a store could refuse.
LAST = "~~~"


def key_of(path: str) -> str:
    """Check a requested path again and return its key, ``""`` for the root.

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
    """Return what the keys in the directory ``key`` begin with."""
    return key + "/" if key else ""


def parent_of(key: str) -> str:
    return key.rpartition("/")[0]


def ancestors(key: str) -> list[str]:
    """Return the directories on the way to a key, from the outermost; without the root."""
    parts = key.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def is_hidden(part: str) -> bool:
    """Tell whether a part of a key can be no file's name, so that no mount shows it."""
    if part in ("", ".", "..") or "\0" in part:
        return True
    try:
        return len(part.encode()) > NAME_BYTES
    except UnicodeEncodeError:
        return True
