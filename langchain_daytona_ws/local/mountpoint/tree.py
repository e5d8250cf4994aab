"""What lies where: S3's word, and beside it the files being written and the folders that only exist here."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from .bucket import Bucket, Stored
from .reading import Reading
from .writing import Writing

FOLDER_S = 1.0
# For so long a file whose upload failed is still taken to be there; opening it shows that it is not.
FAILED_S = 0.1


class Folder:
    """A directory. It has nothing of its own."""


Entry = Folder | Writing | Stored
T = TypeVar("T")


def refusal(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]


def check_name(path: str) -> None:
    """Raise EINVAL for a name that can be no part of a key: S3's keys are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise refusal(errno.EINVAL) from None


class Tree:
    """Finds entries by their path below the mount point, without a leading slash; the root is ""."""

    def __init__(self, bucket: Bucket, lifetime: float | None = None) -> None:
        self._bucket = bucket
        self._lifetime = lifetime
        self._lock = threading.RLock()
        self._writing: dict[str, Writing] = {}
        self._local: set[str] = set()
        self._folders_until: dict[str, float] = {}
        self._cached: dict[str, tuple[float, Stored | None]] = {}
        self._readers: dict[str, set[Reading]] = {}
        self._failed: dict[str, tuple[float, Stored]] = {}

    # --- looking ---

    def look(self, path: str) -> Entry | None:
        """Return what a stat finds. A folder that was there a second ago is taken to be there still."""
        check_name(path)
        now = time.monotonic()
        if not path or self._folders_until.get(path, 0.0) > now:
            return Folder()
        until, stale = self._failed.get(path, (0.0, None))
        if until > now and path not in self._writing:
            return stale
        if self._lifetime and path not in self._writing and path not in self._local:
            until, known = self._cached.get(path, (0.0, None))
            if until > now:
                return known
        return self.ask(path)

    def ask(self, path: str) -> Entry | None:
        """Return what is there now, which S3 is asked for. Folders hide files of the same name."""
        check_name(path)
        if not path:
            return Folder()
        lifetime = self._lifetime or 0.0
        if self._bucket.is_folder(path):
            self._folders_until[path] = time.monotonic() + max(FOLDER_S, lifetime)
            with self._lock:
                self._local.discard(path)
            return Folder()
        self._folders_until.pop(path, None)
        stored = self._bucket.head(path)
        with self._lock:
            if path in self._writing:
                return self._writing[path]
            if path in self._local:
                return Folder()
        if lifetime:
            self._cached[path] = (time.monotonic() + lifetime, stored)
        return stored

    def need(self, path: str) -> Entry:
        entry = self.ask(path)
        if entry is None:
            raise refusal(errno.ENOENT)
        return entry

    def list(self, path: str) -> Iterator[str]:
        """Yield the names in a folder, without those that can be no file's."""
        names = {
            name for name, _ in self._bucket.names(path) if name not in ("", ".", "..") and "\0" not in name
        }
        with self._lock:
            inner = [one for one in (*self._writing, *self._local) if one and parent_of(one) == path]
        names.update(one.rpartition("/")[2] for one in inner)
        yield from sorted(names)

    def is_local(self, path: str) -> bool:
        """Say whether the folder `path` exists only here."""
        return path in self._local

    def writing(self, path: str) -> Writing | None:
        return self._writing.get(path)

    # --- changing ---

    def add_file(self, path: str) -> None:
        self._add(path, lambda: self._writing.__setitem__(path, Writing(self._bucket, path)))

    def add_folder(self, path: str) -> None:
        self._add(path, lambda: self._local.add(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder that exists only here and is empty. S3 has no folders that could be removed."""
        entry = self.need(path)
        if not isinstance(entry, Folder):
            raise refusal(errno.ENOTDIR)
        with self._lock:
            if path not in self._local:
                raise refusal(errno.EPERM)
            if any(one.startswith(path + "/") for one in (*self._writing, *self._local)):
                raise refusal(errno.ENOTEMPTY)
            self._local.discard(path)

    def remove_file(self, path: str) -> None:
        entry = self.need(path)
        if isinstance(entry, Folder):
            raise refusal(errno.EISDIR)
        if isinstance(entry, Writing):
            raise refusal(errno.EPERM)
        self._bucket.delete(path)
        self._cached.pop(path, None)

    def start_reading(self, path: str, entry: Stored | Writing) -> Reading:
        """Open a file for reading. One that is being written and is idle is completed by that."""
        with self._lock:
            writing = self._take_over(path)
            if writing is None and isinstance(entry, Writing):
                raise refusal(errno.EPERM)
        if writing is not None:
            self._complete(path, writing)
            found = self.need(path)
            if not isinstance(found, Stored):
                raise refusal(errno.EPERM)
            entry = found
        assert isinstance(entry, Stored)  # noqa: S101 - see above
        reading = Reading(self._bucket, path, entry)
        with self._lock:
            self._readers.setdefault(path, set()).add(reading)
        return reading

    def finish_reading(self, path: str, reading: Reading) -> None:
        with self._lock:
            readers = self._readers.get(path, set())
            readers.discard(reading)
            if not readers:
                self._readers.pop(path, None)

    def start_writing(self, path: str, entry: Entry, overwrite: bool, pid: int) -> Writing:
        """Open a new file, or an existing one when it is to be overwritten: one writer, and no reader beside it."""
        with self._lock:
            if any(not one.is_idle for one in self._readers.get(path, ())):
                raise refusal(errno.EPERM)
            current = self._writing.get(path)
            if current is not None and not current.opened:
                current.open(pid)
                return current
            if not overwrite and (current is not None or isinstance(entry, Stored)):
                raise refusal(errno.EPERM)
            before = self._take_over(path)
            self._readers.pop(path, None)
            writing = self._writing[path] = Writing(self._bucket, path)
            writing.open(pid)
        if before is not None:
            self._complete(path, before)
        return writing

    def resume(self, path: str, handle: Reading | Writing) -> None:
        """Go on with a handle that somebody has closed; EBADF if the file has been opened anew since."""
        with self._lock:
            if not handle.is_idle:
                return
            if isinstance(handle, Writing):
                is_current = self._writing.get(path) is handle
            else:
                is_current = handle in self._readers.get(path, ())
            if not is_current:
                raise refusal(errno.EBADF)
            handle.is_idle = False

    def _take_over(self, path: str) -> Writing | None:
        """Take a file from its writer, if it has one and that is idle; EPERM if it is not."""
        writing = self._writing.get(path)
        if writing is None:
            return None
        if not writing.opened or not writing.is_idle:
            raise refusal(errno.EPERM)
        del self._writing[path]
        return writing

    def _complete(self, path: str, writing: Writing) -> None:
        writing.complete()
        with self._lock:
            self._settled(path)

    def settle(self, path: str, writing: Writing) -> None:
        """After the end of an upload: from now on S3 says what is there, and what folders lead to it."""
        with self._lock:
            if self._writing.get(path) is writing and writing.over:
                del self._writing[path]
                if writing.failed:
                    stale = Stored(writing.size, writing.modified, "")
                    self._failed[path] = (time.monotonic() + FAILED_S, stale)
                self._settled(path)

    def _settled(self, path: str) -> None:
        self._cached.pop(path, None)
        while path := parent_of(path):
            self._local.discard(path)

    def _add(self, path: str, add: Callable[[], T]) -> None:
        if self.ask(path) is not None:
            raise refusal(errno.EEXIST)
        with self._lock:
            if path in self._writing or path in self._local:
                raise refusal(errno.EEXIST)
            add()
