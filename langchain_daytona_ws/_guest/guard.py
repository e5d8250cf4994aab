"""Refuse to go on where somebody else than root could change what root will run. For the build of a snapshot.

A program of its own: its arguments are files and directories. Of each, of all above it, of what a link leads to and
of what the interpreter may import, nothing may be writable by others.
"""

from __future__ import annotations

import os
import stat
import sys

# root and staff, whose /usr/local is in some of Debian's images; the snapshot's account is in neither.
GROUPS = (0, 50)


def main() -> None:
    seen: set[str] = set()
    for path in sys.argv[1:]:
        if os.path.lexists(path):
            check(path, seen)
    check(os.path.realpath(sys.executable), seen)
    for place in filter(os.path.exists, sys.path):
        check(os.path.realpath(place), seen)
        for above, folders, files in os.walk(os.path.realpath(place)):
            # Not of those that the helper's interpreter looks into: -S.
            folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages")]
            for name in (*folders, *files):
                check(os.path.join(above, name), seen)


def check(path: str, seen: set[str]) -> None:
    if path in seen:
        return
    seen.add(path)
    above = os.path.dirname(path)
    if path != "/":
        check(above, seen)
    found = os.lstat(path)
    is_link = stat.S_ISLNK(found.st_mode)
    if is_link:
        target = os.path.normpath(os.path.join(above, os.readlink(path)))
        if os.path.lexists(target):
            check(target, seen)
    others = stat.S_IWOTH if found.st_gid in GROUPS else stat.S_IWOTH | stat.S_IWGRP
    if found.st_uid != 0 or (not is_link and found.st_mode & others):
        sys.exit(
            "ERROR: s3-snapshot: not only root may change %s, which root will use; mend the base image" % path
        )


if __name__ == "__main__":
    main()
