"""The trash of a working copy: it keeps files and links that a pull has removed, and files that it has replaced.

They are needed if a listing of S3 was wrong, or if a program still writes to such a file. `Trash.empty` limits their
age, number and size.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

KEPT_S = 24 * 3600
KEPT_FILES = 10000
KEPT_BYTES = 1024 * 1024 * 1024
WATCHED_MAX = 500
NAME_BYTES = 200


class Trash:
    """The discarded files. The latest of them are watched, because a program may still write to them."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._watched: dict[str, tuple[str, os.stat_result]] = {}  # file in the trash → path, status

    def make(self) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)

    def new_path(self, path: str, status: os.stat_result) -> str:
        """Return the path in the trash to which the caller moves a file, and watch this path, see `written`."""
        name = "%d-%d-%s" % (time.time(), next(self._numbers), shortened(os.path.basename(path)))
        at = "%s/%s" % (self._directory, name)
        with self._lock:
            self._watched[at] = path, status
            if len(self._watched) > WATCHED_MAX:  # each watched file costs time in every push
                del self._watched[next(iter(self._watched))]
        return at

    def written(self) -> Iterator[tuple[str, str]]:
        """Yield each file that a program has written since it was discarded: its path in the trash, and its old path.

        Each file is yielded once.
        """
        for at, (path, status) in list(self._watched.items()):
            try:
                now = os.lstat(at)
            except OSError:
                now = None  # the trash was emptied
            if now is not None and (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                continue
            self._watched.pop(at, None)
            if now is not None:
                yield at, path

    def empty(self) -> None:
        """Delete files that were discarded more than a day ago, and the oldest files beyond the limits."""
        disk = os.statvfs(self._directory)
        left = min(KEPT_BYTES, disk.f_bavail * disk.f_frsize // 4)
        oldest = time.time() - KEPT_S
        for number, name in enumerate(sorted(os.listdir(self._directory), key=_order, reverse=True)):
            path = "%s/%s" % (self._directory, name)
            left -= os.lstat(path).st_blocks * 512
            if number >= KEPT_FILES or left < 0 or _order(name)[0] < oldest:
                remove(path)


def _order(name: str) -> tuple[int, int]:
    """Return when a file was discarded, and its number; zeros if the file's name does not contain them."""
    found = re.match("([0-9]{1,12})-([0-9]{1,12})-", name)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def remove(path: str) -> None:
    """Delete a file, or a directory that an agent has made at its path."""
    try:
        os.unlink(path)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def shortened(name: str) -> str:
    """Return a file's name, cut to NAME_BYTES bytes: the caller adds to it, and the limit of a name is 255 bytes."""
    return name.encode()[:NAME_BYTES].decode(errors="ignore")
