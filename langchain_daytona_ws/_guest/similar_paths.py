"""Find existing paths that are similar to a missing path: the same names in another spelling.

An entry module, called after a path was not found. ``files`` documents the form of requests and answers:

======  ==============================================  ===================================================
op      request                                         answer, in addition to ``ok: true``
======  ==============================================  ===================================================
similar path                                            found: [path], up to 3 similar paths
exists  paths: [path]                                   found: [path], the paths that exist
======  ==============================================  ===================================================
"""

from __future__ import annotations

import os

from langchain_daytona_ws._guest.alike import name_key
from langchain_daytona_ws._guest.walk import RefusedError, answer, locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_NAMES = 5000  # maximum that is checked in one directory
MAX_SIMILAR = 3


def main(request: dict[str, Any]) -> dict[str, Any]:
    return answer(found, request)


def found(request: dict[str, Any]) -> dict[str, Any]:
    root = request["root"]
    if request["op"] == "exists":
        return {"found": [path for path in request["paths"] if exists(root, path)]}
    return {"found": similar(root, request["path"])}


def exists(root: str, path: str) -> bool:
    try:
        with locate(root, path) as location:
            return location.status() is not None
    except (RefusedError, OSError):
        return False


def similar(root: str, path: str) -> list[str]:
    """Return existing paths that are similar to ``path``. A backslash in ``path`` may stand for a slash."""
    paths: list[str] = []
    for spelling in spellings(path):
        prefixes = [""]
        for name in spelling.split("/"):
            prefixes = [
                prefix + similar for prefix in prefixes for similar in _names_like(root, prefix, name)
            ]
            prefixes = [prefix + "/" for prefix in prefixes[:MAX_SIMILAR]]
        paths += [similar[:-1] for similar in prefixes if similar[:-1] not in (path, *paths)]
    return paths[:MAX_SIMILAR]


def spellings(path: str) -> list[str]:
    """Return a path and, if it has backslashes, the same path with slashes."""
    slashes = "/".join(part for part in path.split("\\") if part not in ("", "."))
    return [path, slashes] if "\\" in path and ".." not in slashes.split("/") else [path]


def _names_like(root: str, prefix: str, name: str) -> list[str]:
    """Return the names in a directory that are similar to a name: if the name itself exists, only this name."""
    if exists(root, prefix + name):
        return [name]
    key, checked, similar_names = name_key(name), 0, []
    try:
        with locate(root, prefix or ".") as location:
            fd = location.open_dir()
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    checked += 1
                    if checked > MAX_NAMES:
                        break
                    if name_key(entry.name) == key:
                        similar_names.append(entry.name)
        finally:
            os.close(fd)
    except (RefusedError, OSError):  # not a readable directory
        return []
    return sorted(similar_names)
