"""Find existing paths that are similar to a missing path: the same names in another spelling.

An entry module beside those of the contract in ``files``, in the same form. It is asked once something was not found.

======  ==============================================  ===================================================
op      request                                         answer, beside ``ok: true``
======  ==============================================  ===================================================
near    path                                            found: [path], up to 3 that may be taken for it
exists  paths: [path]                                   found: [path], those of them that exist
======  ==============================================  ===================================================
"""

from __future__ import annotations

import os

from langchain_daytona_ws._guest.alike import same_name
from langchain_daytona_ws._guest.walk import RefusedError, answer, locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_NAMES = 5000  # looked at in one directory
MAX_NEAR = 3


def main(request: dict[str, Any]) -> dict[str, Any]:
    return answer(found, request)


def found(request: dict[str, Any]) -> dict[str, Any]:
    root = request["root"]
    if request["op"] == "exists":
        return {"found": [path for path in request["paths"] if exists(root, path)]}
    return {"found": near(root, request["path"])}


def exists(root: str, path: str) -> bool:
    try:
        with locate(root, path) as spot:
            return spot.status() is not None
    except (RefusedError, OSError):
        return False


def near(root: str, path: str) -> list[str]:
    """Return paths that exist and may be taken for ``path``, in which a backslash may stand for a slash."""
    others: list[str] = []
    for meant in spellings(path):
        above = [""]
        for name in meant.split("/"):
            above = [prefix + other for prefix in above for other in _names_like(root, prefix, name)]
            above = [prefix + "/" for prefix in above[:MAX_NEAR]]
        others += [one[:-1] for one in above if one[:-1] not in (path, *others)]
    return others[:MAX_NEAR]


def spellings(path: str) -> list[str]:
    """Return a path, and what it means where it is written with backslashes."""
    slashes = "/".join(part for part in path.split("\\") if part not in ("", "."))
    return [path, slashes] if "\\" in path and ".." not in slashes.split("/") else [path]


def _names_like(root: str, above: str, name: str) -> list[str]:
    """Return a name if it is there, otherwise those that may be taken for it."""
    if exists(root, above + name):
        return [name]
    same, looked_at, alike = same_name(name), 0, []
    try:
        with locate(root, above or ".") as spot:
            fd = spot.open_dir()
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    looked_at += 1
                    if looked_at > MAX_NAMES:
                        break
                    if same_name(entry.name) == same:
                        alike.append(entry.name)
        finally:
            os.close(fd)
    except (RefusedError, OSError):  # no directory to look into: nothing is like it
        return []
    return sorted(alike)
