"""Refuse to build a snapshot in which users other than root could change files that root executes.

A separate program. It checks the files and directories in its arguments, the directories above them, and the targets of
symbolic links. It also checks all files that the Python interpreter may import.
"""

from __future__ import annotations

import os
import stat
import sys

# Groups that may have write permission: root, and staff, which owns /usr/local in some Debian images. The snapshot's
# user is not a member of these groups.
GROUPS = (0, 50)


def main() -> None:
    seen: set[str] = set()
    for path in sys.argv[1:]:
        if os.path.lexists(path):
            check(path, seen)
    check(os.path.realpath(sys.executable), seen)
    for path_entry in filter(os.path.exists, sys.path):
        check(os.path.realpath(path_entry), seen)
        for parent, folders, files in os.walk(os.path.realpath(path_entry)):
            # The helper's interpreter runs with -S, which ignores these directories.
            folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages")]
            for name in (*folders, *files):
                check(os.path.join(parent, name), seen)


def check(path: str, seen: set[str]) -> None:
    if path in seen:
        return
    seen.add(path)
    parent = os.path.dirname(path)
    if path != "/":
        check(parent, seen)
    found = os.lstat(path)
    is_link = stat.S_ISLNK(found.st_mode)
    if is_link:
        target = os.path.normpath(os.path.join(parent, os.readlink(path)))
        if os.path.lexists(target):
            check(target, seen)
    others = stat.S_IWOTH if found.st_gid in GROUPS else stat.S_IWOTH | stat.S_IWGRP
    if found.st_uid != 0 or (not is_link and found.st_mode & others):
        sys.exit(
            "ERROR: s3-snapshot: users other than root can change %s, which root uses; fix the base image"
            % path
        )


if __name__ == "__main__":
    main()
